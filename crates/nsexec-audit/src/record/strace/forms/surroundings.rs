//! The forms of arguments that concern the surroundings of the command.

use core::fmt::{self, Display, Formatter};
use std::vec::Vec;

use super::Form;
use crate::record::strace::parts::{Arguments, array};
use crate::record::strace::words::{Id, id};

/// Groups, after their number.
pub(in crate::record::strace) struct Groups;

impl Form for Groups {
    type Value = Vec<u32>;

    fn write(groups: &Vec<u32>, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}, [", groups.len())?;
        for (index, group) in groups.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, Id(*group))?;
        }
        f.write_str("]")
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<Vec<u32>> {
        arguments.next()?;
        array(arguments.next()?)?.into_iter().map(id).collect()
    }
}

/// The number of a hook. No system call of its own shows it.
pub(in crate::record::strace) struct HookNumber;

impl Form for HookNumber {
    type Value = u32;

    fn write(number: &u32, f: &mut Formatter<'_>) -> fmt::Result {
        number.fmt(f)
    }

    fn parse(arguments: &mut Arguments<'_>) -> Option<u32> {
        arguments.next()?.parse().ok()
    }
}
