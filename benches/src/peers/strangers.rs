//! Made-up peers: nobody is there, nothing is ever sent to them. What one more costs is all that they are for.

/// One of them.
pub(super) struct Stranger {
    pub(super) number: usize,
    /// Base64; any 32 bytes are a key.
    pub(super) public_key: String,
    /// Where it would be: on the wire, silent.
    pub(super) host: String,
    /// What would be behind it.
    pub(super) cidr: String,
}

/// The first `count`; up to 32,768 have a prefix of their own below 10.128.0.0/9.
pub(super) fn strangers(count: usize) -> impl Iterator<Item = Stranger> {
    (0..count).map(|number| Stranger {
        number,
        public_key: public_key(number),
        host: "10.77.0.254".into(),
        cidr: format!("10.{}.{}.0/24", 128 + number / 256, number % 256),
    })
}

/// 32 bytes in base64: ten digits of the number in front, which are base64 as they stand, and zeros.
fn public_key(number: usize) -> String {
    format!("{number:0>10}{}=", "A".repeat(33))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_share_a_key_or_a_prefix() {
        let keys: BTreeSet<_> = strangers(5000).map(|one| one.public_key).collect();
        let cidrs: BTreeSet<_> = strangers(5000).map(|one| one.cidr).collect();
        assert_eq!((keys.len(), cidrs.len()), (5000, 5000));
        assert!(keys.iter().all(|key| key.len() == 44));
        assert!(cidrs.contains("10.147.135.0/24"), "the last one");
    }
}
