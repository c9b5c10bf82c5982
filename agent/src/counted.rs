//! Things with their number.

use std::fmt::Display;

/// `1 route`, `2 routes`; of nouns that take an s.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    format!("{number} {noun}{}", if number == N::from(1) { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0u64, 1, 2].map(|number| counted(number, "route")), ["0 routes", "1 route", "2 routes"]);
    }
}
