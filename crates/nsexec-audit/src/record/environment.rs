//! Environments without values, which often contain secrets.

use super::{Bytes, Call};

/// The text that replaces a value.
const PLACEHOLDER: &[u8] = "…".as_bytes();

/// Returns `NAME=…` for `NAME=value`. For a string that is not a variable, the result is `=…`.
#[must_use]
pub fn without_value(variable: &[u8]) -> Bytes {
    // As in the standard library, a leading '=' is part of the name.
    let end = variable.iter().skip(1).position(|byte| *byte == b'=').map_or(0, |at| at + 1);
    let name = variable.get(..end).unwrap_or_default();
    Bytes([name, b"=", PLACEHOLDER].concat())
}

impl Call {
    /// Removes the values from an exec's environment. The names and their order are kept.
    pub fn remove_values(&mut self) {
        if let Self::Execve { envp, .. } | Self::Execveat { envp, .. } = self {
            envp.iter_mut().for_each(|variable| *variable = without_value(&variable.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_a_variable_is_kept() {
        for (variable, left) in [
            ("TOKEN=s3cret", "TOKEN=…"),
            ("EMPTY=", "EMPTY=…"),
            ("A=b=c", "A=…"),
            ("A=…", "A=…"),
            ("=C:=x", "=C:=…"),
            ("no variable", "=…"),
            ("", "=…"),
        ] {
            assert_eq!(without_value(variable.as_bytes()), left.as_bytes().into(), "{variable}");
        }
    }
}
