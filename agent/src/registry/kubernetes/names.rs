//! The names of blocks: a prefix with dashes for dots, colons and the slash, so that no two objects are the same prefix.

use ipnet::IpNet;

/// `10-1-2-0-24`; `None` for prefixes below `::`, which begin with a dash and belong to no node.
pub(super) fn block_name(cidr: IpNet) -> Option<String> {
    let name = cidr.trunc().to_string().replace(['.', ':', '/'], "-");
    (!name.starts_with('-')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(cidr: &str) -> Option<String> {
        block_name(cidr.parse().unwrap())
    }

    #[test]
    fn prefixes_of_either_family_have_names_of_their_own() {
        assert_eq!(name("10.1.2.0/24").as_deref(), Some("10-1-2-0-24"));
        assert_eq!(name("fd00:1::/64").as_deref(), Some("fd00-1---64"));
        assert_ne!(name("fd00:1::/64"), name("fd00::1:0:0:0/64"));
        assert_eq!(name("::/96"), None);
    }
}
