//! strace's form of a call and of its reply, as strace 6.1 writes it: Display writes it, and [`parse_line`]
//! parses it. Both follow from the rows of the [table](super::table).

mod forms;
pub(crate) mod parts;
mod replies;
pub(crate) mod words;

use core::fmt::{self, Display, Formatter};
use std::format;
use std::string::String;

use super::table::calls;
use super::{Call, Line, Reply, kind};
use forms::{Form, Usual};
use parts::{Arguments, Parts, Writer, field, split};
use replies::Shown;

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.call.name())?;
        write_arguments(f, &self.call, &self.reply)?;
        f.write_str(") = ")?;
        match (self.call.chosen(), &self.reply) {
            (Some(number), Reply::Unit) => write!(f, "{}", number.0),
            (_, reply) => replies::write_result(f, reply),
        }
    }
}

impl Display for Call {
    /// Writes the call without a result. A buffer that the call will fill is `0x…`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name())?;
        write_arguments(f, self, &Reply::Unit)?;
        f.write_str(")")
    }
}

/// Parses one line, as strace writes it with [`FLAGS`](crate::witness::FLAGS), or as a recorded line is
/// shown. Returns `None` if the bootstrap does not make such a call. Each call of the bootstrap is recognised
/// only in the one form in which the bootstrap makes it.
///
/// Parts that a line does not show are returned empty. Without `-v`, strace shows only the number of strings
/// of an environment, and only the length of a directory's entries. Recorded lines do the same. No line shows
/// the cached thread id, which is returned as 0.
#[must_use]
pub fn parse_line(line: &str) -> Option<Line> {
    let Parts { name, args, result } = split(line)?;
    if name == "ppoll" {
        // On aarch64 a poll is a ppoll, with the time as a structure.
        let [fds, count, time, "NULL", ..] = args[..] else { return None };
        let time = milliseconds(time)?;
        return parse_call(&Parts { name: "poll", args: [fds, count, &time].into(), result });
    }
    parse_call(&Parts { name, args, result })
}

/// Parses `NULL` or `{tv_sec=0, tv_nsec=200000000}`. Returns the milliseconds as poll has them.
fn milliseconds(text: &str) -> Option<String> {
    if text == "NULL" {
        return Some("-1".into());
    }
    let seconds = words::number(field(text, "tv_sec")?)?;
    let nanoseconds = words::number(field(text, "tv_nsec")?)?;
    Some(format!("{}", seconds.checked_mul(1000)?.checked_add(nanoseconds / 1_000_000)?))
}

/// Writes one element of a row's form.
macro_rules! write_element {
    ($out:ident, $kind:ident of $reply:ident, reply) => {
        kind::$kind::write($out.next()?, $reply)?
    };
    ($out:ident, $kind:ident of $reply:ident, $text:literal) => {
        $out.next()?.write_str($text)?
    };
    ($out:ident, $kind:ident of $reply:ident, $field:ident) => {
        Usual::write($field, $out.next()?)?
    };
    ($out:ident, $kind:ident of $reply:ident, $form:ident $field:ident) => {
        forms::$form::write($field, $out.next()?)?
    };
    ($out:ident, $kind:ident of $reply:ident, $form:ident $one:ident $other:ident) => {
        forms::$form::write(&(*$one, *$other), $out.next()?)?
    };
}

/// Parses one element of a row's form, and defines the fields that it shows.
macro_rules! parse_element {
    ($arguments:ident, reply) => {
        $arguments.fill()?;
    };
    ($arguments:ident, $text:literal) => {
        $arguments.text($text)?;
    };
    ($arguments:ident, $field:ident) => {
        let $field = Usual::parse($arguments)?;
    };
    ($arguments:ident, $form:ident $field:ident) => {
        let $field = forms::$form::parse($arguments)?;
    };
    ($arguments:ident, $form:ident $one:ident $other:ident) => {
        let ($one, $other) = forms::$form::parse($arguments)?;
    };
}

/// Defines the writer and the parser of all calls from the rows of the table.
macro_rules! show_calls {
    ($(
        $method:ident $variant:ident $({ $($(#[$attribute:meta])* $field:ident: $word:ident),* })?
            -> $kind:ident $(($limit:ident))?
            = $name:ident($($form:tt $(($($shown:ident),*))?),*);
    )*) => {
        /// Writes the arguments of a call.
        fn write_arguments(f: &mut Formatter<'_>, call: &Call, reply: &Reply) -> fmt::Result {
            let out = &mut Writer::new(f);
            match call { $(
                Call::$variant $({ $($field),* })? => {
                    $(write_element!(out, $kind of reply, $form $($($shown)*)?);)*
                }
            )* }
            Ok(())
        }

        /// Parses a call and its reply. Calls with the same name differ in their arguments.
        fn parse_call(parts: &Parts<'_>) -> Option<Line> {
            $(if parts.name == stringify!($name) {
                let read = || {
                    let arguments = &mut Arguments::new(&parts.args);
                    $(parse_element!(arguments, $form $($($shown)*)?);)*
                    arguments.end()?;
                    Some((Call::$variant { $($($field),*)? }, arguments.filled))
                };
                if let Some((call, filled)) = read() {
                    let reply = match words::errno(parts.result) {
                        Some(errno) => Reply::Errno(errno),
                        None => kind::$kind::parse(&call, filled, parts.result)?,
                    };
                    return Some(Line { call, reply });
                }
            })*
            None
        }
    };
}

calls!(show_calls);
