//! The pages name what the code names.

use warren_overlay::drops::DropReason;

#[test]
fn every_drop_reason_is_explained() {
    let page = include_str!("../../docs/troubleshooting.md");
    for reason in DropReason::ALL {
        assert!(
            page.contains(&format!("| `{}` |", reason.name())),
            "{} is not in docs/troubleshooting.md",
            reason.name()
        );
    }
}
