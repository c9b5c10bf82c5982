//! What is wrong with the configuration, and where: in the file, an environment variable or a flag. Quotes no value that
//! may be a secret: whoever notes a fault sees to that.

use std::fmt;
use std::path::PathBuf;

use super::layers::Origin;

/// Where a fault is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file, from 1.
    Line {
        /// The line.
        line: usize,
        /// The column, in bytes.
        column: usize,
    },
    /// In the file as a whole, or in what is not there.
    File,
    /// In what wins over the file.
    Setting(Origin),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What, with the key and the allowed values.
    pub what: String,
}

/// Everything that is wrong, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub faults: Vec<Fault>,
}

impl ConfigError {
    /// True when a flag is at fault: the command line is wrong, whatever the file says.
    pub fn is_usage(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.place, Place::Setting(Origin::Flag(_))))
    }
}

/// One line for each fault.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (number, Fault { place, what }) in self.faults.iter().enumerate() {
            let end = if number == 0 { "" } else { "\n" };
            match place {
                Place::Line { line, column } => write!(f, "{end}{path}:{line}:{column}: {what}")?,
                Place::File => write!(f, "{end}{path}: {what}")?,
                Place::Setting(origin) => write!(f, "{end}{origin}: {what}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
