//! What is, what should be, and the steps between: one comparison for peers, addresses, routes and rules.

use std::collections::BTreeMap;

/// The steps from what is to what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta<K, V> {
    /// To be made.
    pub added: Vec<(K, V)>,
    /// To be replaced, with the new value.
    pub changed: Vec<(K, V)>,
    /// To be taken away, with the old value.
    pub removed: Vec<(K, V)>,
}

impl<K: Ord + Clone, V: PartialEq + Clone> Delta<K, V> {
    /// Compares.
    pub fn between(is: &BTreeMap<K, V>, should_be: &BTreeMap<K, V>) -> Self {
        let of = |map: &BTreeMap<K, V>, keep: &dyn Fn(&K, &V) -> bool| {
            map.iter()
                .filter(|(key, value)| keep(key, value))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        Self {
            added: of(should_be, &|key, _| !is.contains_key(key)),
            changed: of(should_be, &|key, value| is.get(key).is_some_and(|old| old != value)),
            removed: of(is, &|key, _| !should_be.contains_key(key)),
        }
    }

    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.added.len() + self.changed.len() + self.removed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_steps_lead_from_what_is_to_what_should_be(
            is in proptest::collection::btree_map(0u8..20, 0u8..3, 0..15),
            should_be in proptest::collection::btree_map(0u8..20, 0u8..3, 0..15)
        ) {
            let delta = Delta::between(&is, &should_be);
            let mut now = is.clone();
            for (key, value) in &delta.removed {
                prop_assert_eq!(now.remove(key), Some(*value));
            }
            for (key, value) in &delta.changed {
                prop_assert!(now.insert(*key, *value).is_some_and(|old| old != *value));
            }
            for (key, value) in &delta.added {
                prop_assert_eq!(now.insert(*key, *value), None);
            }
            prop_assert_eq!(&now, &should_be);
            prop_assert!(Delta::between(&now, &should_be).is_empty());
        }
    }
}
