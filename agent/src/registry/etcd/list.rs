//! Everything below the prefix at one revision, a page at a time: 5,000 records do not fit one reply.

use etcd_client::{Client, Error, GetOptions};

use super::{Keys, Store};

/// Keys in one page: at 8 KiB a record below 4 MiB.
const PAGE: i64 = 400;
/// The largest reply that is taken. Whoever fills the store with larger values is refused a record at a time.
pub(super) const REPLY_MAX: usize = 32 << 20;

/// Lists the cluster.
///
/// # Errors
/// What the store says; among others that the revision was compacted meanwhile.
pub async fn list(client: &mut Client, keys: &Keys) -> Result<Store, Error> {
    let mut client = client.kv_client().max_decoding_message_size(REPLY_MAX);
    let end = end_of(keys.prefix());
    let (mut from, mut revision, mut values, mut limit) = (keys.prefix().as_bytes().to_vec(), 0, Vec::new(), PAGE);
    loop {
        let options = GetOptions::new().with_range(end.clone()).with_limit(limit).with_revision(revision);
        let mut page = match client.get(from.clone(), Some(options)).await {
            // Oversized values make a page larger than what is taken.
            Err(error) if limit > 1 && is_out_of_range(&error) => {
                limit /= 2;
                continue;
            }
            page => page?,
        };
        if revision == 0 {
            revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
        }
        let more = page.more();
        values.extend(page.take_kvs());
        match values.last() {
            Some(last) if more => {
                from = last.key().to_vec();
                from.push(0);
            }
            _ => return Ok(Store::listed(values, revision)),
        }
    }
}

/// The first key behind everything that begins with `prefix`.
pub(crate) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// A reply too large to be taken, or a revision that was compacted.
pub(super) fn is_out_of_range(error: &Error) -> bool {
    // The number of the gRPC status, google.rpc.Code.
    matches!(error, Error::GRpcStatus(status) if i32::from(status.code()) == 11)
}
