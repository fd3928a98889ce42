//! Environments without their values, which are where people keep their secrets.

use super::{Bytes, Call};

/// What stands in the place of a value.
const LEFT_OUT: &[u8] = "…".as_bytes();

/// `NAME=…` of `NAME=value`. Of what is no variable nothing is left but that it was there.
#[must_use]
pub fn without_value(variable: &[u8]) -> Bytes {
    // A leading '=' is part of the name, as for the standard library.
    let end = variable.iter().skip(1).position(|byte| *byte == b'=').map_or(0, |at| at + 1);
    let name = variable.get(..end).unwrap_or_default();
    Bytes([name, b"=", LEFT_OUT].concat())
}

impl Call {
    /// Takes the values out of an exec's environment. The names stay, and their order.
    pub fn leave_values_out(&mut self) {
        if let Self::Execve { envp, .. } | Self::Execveat { envp, .. } = self {
            envp.iter_mut().for_each(|variable| *variable = without_value(&variable.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_variable_its_name_is_left() {
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
