//! Blocks that one node's agent made without end: of each node the oldest count, so that all others keep theirs. What
//! administrators made is not counted.

use std::collections::BTreeMap;

use ipnet::IpNet;
use warren_overlay::record::NodeName;

use super::store::Block;

/// As many of one node's agent count.
pub(super) const BLOCKS: usize = 256;

/// Leaves out what is beyond so many of one node, and says whose that was.
pub(super) fn leave_out(blocks: &mut Vec<Block<'_>>, most: usize) -> Vec<String> {
    let mut made: BTreeMap<NodeName, Vec<(u64, IpNet)>> = BTreeMap::new();
    for block in blocks.iter().filter(|block| block.object.owner.is_some()) {
        made.entry(block.node.clone()).or_default().push((block.created(), block.cidr));
    }
    made.retain(|_, blocks| blocks.len() > most);
    made.values_mut().for_each(|blocks| blocks.sort_unstable());
    blocks.retain(|block| {
        let surplus = made.get(&block.node).map(|blocks| &blocks[most..]).filter(|_| block.object.owner.is_some());
        surplus.is_none_or(|surplus| surplus.binary_search(&(block.created(), block.cidr)).is_err())
    });
    let said = |(node, blocks): (&NodeName, &Vec<_>)| {
        format!("{node} made {} WarrenBlocks: those beyond the oldest {most} are ignored", blocks.len())
    };
    made.iter().map(said).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::follow::News;
    use super::super::object::{Kind, Object};
    use super::super::store::Store;
    use super::*;

    fn block(second: usize, cidr: &str, node: &str, owner: Option<&str>) -> Value {
        let owner: Value = owner.map(|uid| json!([{"kind": "Node", "uid": uid}])).into();
        json!({"metadata": {"name": cidr.replace(['.', '/'], "-"), "uid": cidr, "ownerReferences": owner,
            "creationTimestamp": format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60)},
            "spec": {"cidr": cidr, "node": node}})
    }

    #[test]
    fn of_blocks_without_end_the_oldest_stay_and_nobody_else_loses_one() {
        let made = |second| block(second, &format!("10.2.{}.0/24", 255 - second), "evil", Some("u"));
        let others = [block(9, "10.3.0.0/24", "b", Some("v")), block(9, "10.4.0.0/24", "evil", None)];
        let objects = (0..256).map(made).chain(others).filter_map(|value| Object::read(Kind::Block, value)).collect();
        let mut store = Store::default();
        store.apply(News::Listed(Kind::Block, objects, "1".to_owned()));
        let (mut blocks, faults) = store.blocks();
        assert_eq!((blocks.len(), faults), (258, Vec::new()), "as many as one may have");
        let said = leave_out(&mut blocks, 2);
        let left: Vec<_> = blocks.iter().map(|block| block.cidr.to_string()).collect();
        assert_eq!(left, ["10.2.254.0/24", "10.2.255.0/24", "10.3.0.0/24", "10.4.0.0/24"]);
        assert_eq!(said, ["evil made 256 WarrenBlocks: those beyond the oldest 2 are ignored"]);
    }
}
