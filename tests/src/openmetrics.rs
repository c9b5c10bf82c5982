//! A strict reader of OpenMetrics text (version 1.0.0), written from the specification and from nothing else: what it
//! takes, any scraper takes.

use std::collections::{BTreeMap, BTreeSet};

/// A sample's labels.
pub type Labels = BTreeMap<String, String>;

/// Suffixes that a sample's name may have beyond its family's, by type.
const SUFFIXES: [(&str, &[&str]); 8] = [
    ("counter", &["_total", "_created"]),
    ("gauge", &[""]),
    ("info", &["_info"]),
    ("unknown", &[""]),
    ("stateset", &[""]),
    ("histogram", &["_bucket", "_count", "_sum", "_created"]),
    ("gaugehistogram", &["_bucket", "_gcount", "_gsum"]),
    ("summary", &["", "_count", "_sum", "_created"]),
];

/// Everything that was exposed.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    samples: BTreeMap<(String, Labels), f64>,
}

/// The family whose lines are being read.
#[derive(Clone, Debug, Default)]
struct Family {
    name: String,
    kind: Option<String>,
    help: bool,
    unit: bool,
    sampled: bool,
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    exposition: Exposition,
    family: Family,
    /// Families that are over.
    closed: BTreeSet<String>,
}

impl Exposition {
    /// Reads it whole.
    ///
    /// # Errors
    /// The first thing that is not as the specification has it, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("it does not end with `# EOF` and a line feed")?;
        let mut reader = Reader::default();
        for (number, line) in body.split_inclusive('\n').enumerate() {
            let line = line.strip_suffix('\n').ok_or_else(|| format!("line {}: no line feed", number + 1))?;
            reader.line(line).map_err(|error| format!("line {}: {error}: {line}", number + 1))?;
        }
        Ok(reader.exposition)
    }

    /// The value of one series.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// Every series.
    pub fn samples(&self) -> impl Iterator<Item = (&str, &Labels)> {
        self.samples.keys().map(|(name, labels)| (name.as_str(), labels))
    }
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        match line.strip_prefix("# ") {
            Some("EOF") => Err("`# EOF` before the end".to_owned()),
            Some(metadata) => self.metadata(metadata),
            None if line.starts_with('#') || line.is_empty() => Err("neither metadata nor a sample".to_owned()),
            None => self.sample(line),
        }
    }

    fn metadata(&mut self, text: &str) -> Result<(), String> {
        let mut words = text.splitn(3, ' ');
        let (Some(keyword), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else {
            return Err("metadata has three parts".to_owned());
        };
        self.enter(name)?;
        let family = &mut self.family;
        if family.sampled {
            return Err("metadata behind a sample of its family".to_owned());
        }
        let twice = match keyword {
            "TYPE" if SUFFIXES.iter().any(|(kind, _)| *kind == rest) => family.kind.replace(rest.to_owned()).is_some(),
            "HELP" => {
                unescape(rest)?;
                std::mem::replace(&mut family.help, true)
            }
            "UNIT" if rest.is_empty() || name.ends_with(&format!("_{rest}")) => {
                std::mem::replace(&mut family.unit, true)
            }
            _ => return Err("no such metadata".to_owned()),
        };
        if twice { Err("metadata twice".to_owned()) } else { Ok(()) }
    }

    /// Goes on with a family: lines of one stand together.
    fn enter(&mut self, name: &str) -> Result<(), String> {
        if self.family.name == name {
            return Ok(());
        }
        if !is_name(name, true) {
            return Err(format!("{name:?} is no name"));
        }
        let over = std::mem::replace(&mut self.family, Family { name: name.to_owned(), ..Family::default() });
        self.closed.insert(over.name);
        if self.closed.contains(name) {
            return Err("a family in two places".to_owned());
        }
        Ok(())
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let end = line.find(['{', ' ']).ok_or("a sample has a value")?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = labels(rest)?;
        let value = rest.strip_prefix(' ').ok_or("one space before the value")?;
        let value = value.parse::<f64>().ok().filter(|_| !value.contains(' ')).ok_or("one number, and no timestamp")?;
        self.check(name, value)?;
        self.family.sampled = true;
        match self.exposition.samples.insert((name.to_owned(), labels), value) {
            None => Ok(()),
            Some(_) => Err("a series twice".to_owned()),
        }
    }

    /// A sample belongs to the family right before it, whose type says what it may be called and be.
    fn check(&self, name: &str, value: f64) -> Result<(), String> {
        let Some(suffix) = name.strip_prefix(&self.family.name) else { return Err("not of this family".to_owned()) };
        let kind = self.family.kind.as_deref().ok_or("a family without a type")?;
        if !self.family.help {
            return Err("a family without help".to_owned());
        }
        let allowed = SUFFIXES.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, suffixes)| suffixes);
        if !allowed.contains(&suffix) {
            return Err(format!("{suffix:?} is no suffix of a {kind}"));
        }
        match kind {
            "counter" if value.is_nan() || value < 0.0 => Err("a counter is a number from 0".to_owned()),
            "info" if value != 1.0 => Err("an info is 1".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The labels that a sample may have, and what follows.
fn labels(text: &str) -> Result<(Labels, &str), String> {
    let mut labels = Labels::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Ok((labels, text)) };
    while !rest.starts_with('}') {
        if !labels.is_empty() {
            rest = rest.strip_prefix(',').ok_or("a comma between labels")?;
        }
        let (name, more) = rest.split_once("=\"").ok_or("a label is NAME=\"VALUE\"")?;
        if !is_name(name, false) {
            return Err(format!("{name:?} is no label's name"));
        }
        let end = closing_quote(more).ok_or("a label's value ends")?;
        let (value, more) = (more.get(..end).unwrap_or_default(), more.get(end + 1..).unwrap_or_default());
        if labels.insert(name.to_owned(), unescape(value)?).is_some() {
            return Err(format!("the label {name} twice"));
        }
        rest = more;
    }
    Ok((labels, rest.get(1..).unwrap_or_default()))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes.then_some(at)
    })
}

fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        plain.push(match (c, if c == '\\' { rest.next() } else { None }) {
            ('\\', Some('n')) => '\n',
            ('\\', Some(quoted @ ('\\' | '"'))) => quoted,
            ('\\', _) => return Err("a backslash before none of n, \\ and \"".to_owned()),
            ('"', _) => return Err("a quote that is not escaped".to_owned()),
            (c, _) => c,
        });
    }
    Ok(plain)
}

fn is_name(text: &str, colons: bool) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    text.chars().all(valid) && text.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a b\n# TYPE a counter\na_total{x=\"1\\\"\\\\\\n\",y=\"\"} 2\na_total{x=\"2\",y=\"\"} 3.5\n\
                        # TYPE i info\n# HELP i j\ni_info{v=\"1\"} 1\n# HELP g h\n# TYPE g gauge\ng -1e3\n# EOF\n";

    #[test]
    fn what_the_specification_has_is_read() {
        let read = Exposition::parse(GOOD).expect("valid");
        assert_eq!(read.value("a_total", &[("y", ""), ("x", "1\"\\\n")]), Some(2.0));
        assert_eq!(read.value("g", &[]), Some(-1000.0));
        assert_eq!(read.samples().count(), 4);
    }

    #[test]
    fn what_it_has_not_is_refused() {
        let head = "# HELP a b\n# TYPE a counter\n";
        for (wrong, why) in [
            ("", "does not end"),
            ("# EOF", "does not end"),
            ("# EOF\n# EOF\n", "before the end"),
            ("a 1\n# EOF\n", "without a type"),
            ("# TYPE b gauge\n# HELP b c\na 1\n# EOF\n", "not of this family"),
            ("# TYPE a counter\na_total 1\n# EOF\n", "without help"),
            ("# HELP a b\na_total 1\n# EOF\n", "without a type"),
            (&format!("{head}a 1\n# EOF\n"), "no suffix"),
            (&format!("{head}a_total -1\n# EOF\n"), "from 0"),
            (&format!("{head}a_total one\n# EOF\n"), "one number"),
            (&format!("{head}a_total 1\na_total 1\n# EOF\n"), "a series twice"),
            (&format!("{head}a_total{{x=\"1\",x=\"2\"}} 1\n# EOF\n"), "the label x twice"),
            (&format!("{head}a_total{{1=\"1\"}} 1\n# EOF\n"), "no label's name"),
            (&format!("{head}a_total{{x=\"\\t\"}} 1\n# EOF\n"), "backslash"),
            (&format!("{head}a_total{{x=\"1\" y=\"2\"}} 1\n# EOF\n"), "a comma"),
            (&format!("{head}a_total{{x=\"1}} 1\n# EOF\n"), "value ends"),
            (&format!("{head}a_total 1\n# TYPE b gauge\n# HELP b c\nb 1\n{head}# EOF\n"), "two places"),
            (&format!("{head}# HELP a b\n# EOF\n"), "metadata twice"),
            (&format!("{head}a_total 1\n# UNIT a \n# EOF\n"), "behind a sample"),
            ("# TYPE a dial\n# EOF\n", "no such metadata"),
            ("# HELP a b\"c\n# EOF\n", "not escaped"),
            ("\n# EOF\n", "neither"),
        ] {
            let error = Exposition::parse(wrong).expect_err(wrong);
            assert!(error.contains(why), "{wrong:?} gave {error:?}");
        }
    }
}
