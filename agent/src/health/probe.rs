//! Checks as text, one line each, in the manner of Kubernetes' own components. Pure.

use std::fmt::Write as _;

/// One thing that must be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name: a line's beginning, and a label of a metric.
    pub name: &'static str,
    /// What is wrong; `None` when it is as it should be.
    pub problem: Option<String>,
}

impl Check {
    /// By its name, with what is wrong.
    pub fn new(name: &'static str, problem: Option<String>) -> Self {
        Self { name, problem }
    }

    /// It is as it should be.
    pub fn passes(&self) -> bool {
        self.problem.is_none()
    }
}

/// Whether all of them pass.
pub(super) fn pass(checks: &[Check]) -> bool {
    checks.iter().all(Check::passes)
}

/// `ok`, or every check in a line of its own when somebody wants that or when one of them fails.
pub(super) fn text(probe: &str, checks: &[Check], verbose: bool) -> String {
    let pass = pass(checks);
    if pass && !verbose {
        return "ok\n".to_owned();
    }
    let mut text = String::new();
    for Check { name, problem } in checks {
        let _ = match problem {
            None => writeln!(text, "[+]{name} ok"),
            Some(problem) => writeln!(text, "[-]{name} failed: {}", on_one_line(problem)),
        };
    }
    let _ = writeln!(text, "{probe} check {}", if pass { "passed" } else { "failed" });
    text
}

/// What others say must not look like another check's line.
fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_well_is_said_in_a_word_unless_somebody_wants_more() {
        let checks = [Check::new("guard", None), Check::new("mesh", None)];
        assert_eq!(text("readyz", &checks, false), "ok\n");
        assert_eq!(text("readyz", &checks, true), "[+]guard ok\n[+]mesh ok\nreadyz check passed\n");
    }

    #[test]
    fn what_fails_is_named_beside_what_does_not_also_unasked() {
        let checks = [Check::new("guard", Some("gone\n[+]guard ok".into())), Check::new("mesh", None)];
        let expected = "[-]guard failed: gone [+]guard ok\n[+]mesh ok\nlivez check failed\n";
        assert_eq!(text("livez", &checks, false), expected);
        assert_eq!(text("livez", &checks, true), expected);
    }
}
