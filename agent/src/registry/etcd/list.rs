//! Everything below the prefix at one revision, a page at a time: 5,000 records do not fit one reply.

use etcd_client::{Client, Error, GetOptions};

use super::{Keys, Store};

/// Keys in one page: at 8 KiB a record below etcd's 4 MiB.
const PAGE: i64 = 400;

/// Lists the cluster.
///
/// # Errors
/// What the store says; among others that the revision was compacted meanwhile.
pub async fn list(client: &mut Client, keys: &Keys) -> Result<Store, Error> {
    let mut end = keys.prefix().as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let (mut from, mut revision, mut values) = (keys.prefix().as_bytes().to_vec(), 0, Vec::new());
    loop {
        let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(revision);
        let mut page = client.get(from, Some(options)).await?;
        if revision == 0 {
            revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
        }
        let more = page.more();
        values.append(&mut page.take_kvs());
        match values.last() {
            Some(last) if more => {
                from = last.key().to_vec();
                from.push(0);
            }
            _ => return Ok(Store::listed(values, revision)),
        }
    }
}
