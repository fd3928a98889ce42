//! The arrays of strings that an exec passes on. `types` exports them.

use core::ffi::{CStr, c_char};
use core::marker::PhantomData;
use core::ptr::NonNull;

/// One argument of an exec: a pointer made from a `&CStr` of that lifetime.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct ArgPtr<'a>(NonNull<c_char>, PhantomData<&'a CStr>);

impl<'a> ArgPtr<'a> {
    fn new(arg: &'a CStr) -> Option<Self> {
        NonNull::new(arg.as_ptr().cast_mut()).map(|pointer| Self(pointer, PhantomData))
    }
}

/// The argument or environment array of an exec, in the layout that the kernel reads, so that a backend needs
/// no loop. Also holds the same strings as text, for transcripts.
#[derive(Clone, Copy, Debug)]
pub struct ExecArgs<'a> {
    pointers: &'a [Option<ArgPtr<'a>>],
    /// The strings before those of `text`: a shell, and the script that it runs.
    first: Option<[&'a CStr; 2]>,
    text: &'a [u8],
}

impl<'a> ExecArgs<'a> {
    /// An array without any string.
    pub const EMPTY: Self = Self { pointers: &[None], first: None, text: &[] };

    /// Builds an array of the strings of `text`. They follow each other in `text`, each with its NUL, as in
    /// /proc/PID/cmdline. `slots` receives one pointer for each string, and the final null pointer.
    ///
    /// Returns `None` if the last string lacks its NUL or `slots` is too small.
    pub fn build(text: &'a [u8], slots: &'a mut [Option<ArgPtr<'a>>]) -> Option<Self> {
        let mut rest = text;
        let mut used: usize = 0;
        while !rest.is_empty() {
            let arg = CStr::from_bytes_until_nul(rest).ok()?;
            *slots.get_mut(used)? = Some(ArgPtr::new(arg)?);
            used = used.checked_add(1)?;
            rest = rest.get(arg.count_bytes().checked_add(1)?..)?;
        }
        *slots.get_mut(used)? = None;
        let pointers = slots.get(..used.checked_add(1)?)?;
        Some(Self { pointers, first: None, text })
    }

    /// Returns the array that execve(2) reads: pointers to strings with NUL, then a null pointer.
    #[must_use]
    pub fn pointers(&self) -> &'a [Option<ArgPtr<'a>>] {
        self.pointers
    }

    /// Returns the strings, without their NULs.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let rest = self.text.strip_suffix(&[0]).into_iter().flat_map(|text| text.split(|byte| *byte == 0));
        self.first.into_iter().flatten().map(CStr::to_bytes).chain(rest)
    }
}

/// The arrays with which a shell runs a file without a format that the kernel knows, one for each file.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct ScriptArgs<'a> {
    pointers: &'a [Option<ArgPtr<'a>>],
    width: usize,
    text: &'a [u8],
}

#[cfg(feature = "std")]
impl<'a> ScriptArgs<'a> {
    /// The shell that execvp(3) starts: glibc's `_PATH_BSHELL`.
    pub const SHELL: &'static CStr = c"/bin/sh";

    /// No array.
    pub const NONE: Self = Self { pointers: &[], width: 1, text: &[] };

    /// Returns the number of pointers in the array of one file, for a command with this number of arguments.
    /// The shell and the file replace the argument 0; a null pointer follows the last argument.
    #[must_use]
    pub const fn width(arguments: usize) -> usize {
        let others = arguments.saturating_sub(1);
        others.saturating_add(3)
    }

    /// Builds the arrays. `files` has the paths, each with its NUL. `slots` receives [`width`](Self::width)
    /// pointers for each of them.
    ///
    /// Returns `None` if `slots` is too small.
    pub fn build(files: &'a [u8], argv: &ExecArgs<'a>, slots: &'a mut [Option<ArgPtr<'a>>]) -> Option<Self> {
        let others = argv.pointers.iter().skip(1).copied().flatten();
        let width = Self::width(argv.pointers.len().saturating_sub(1));
        let (mut rest, mut arrays) = (files, slots.chunks_exact_mut(width));
        while let Ok(file) = CStr::from_bytes_until_nul(rest) {
            let pointers = [ArgPtr::new(Self::SHELL)?, ArgPtr::new(file)?];
            let array = arrays.next()?;
            array.fill(None);
            for (slot, pointer) in array.iter_mut().zip(pointers.into_iter().chain(others.clone())) {
                *slot = Some(pointer);
            }
            rest = rest.get(file.count_bytes().checked_add(1)?..)?;
        }
        let text =
            argv.text.iter().position(|byte| *byte == 0).and_then(|end| argv.text.get(end..)?.get(1..));
        Some(Self { pointers: slots, width, text: text.unwrap_or_default() })
    }

    /// Returns the array for the file with this index and this path. `None` if it was not built.
    #[must_use]
    pub fn get(&self, index: usize, file: &'a CStr) -> Option<ExecArgs<'a>> {
        let pointers = self.pointers.chunks_exact(self.width).nth(index)?;
        Some(ExecArgs { pointers, first: Some([Self::SHELL, file]), text: self.text })
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use std::vec::Vec;

    const FILES: &[u8] = b"/a/run\0./run\0";

    /// Returns the strings of the array for the second file.
    fn second(argv: &[u8]) -> Vec<Vec<u8>> {
        let count = argv.iter().filter(|byte| **byte == 0).count();
        let (mut slots, mut more) =
            (std::vec![None; count + 1], std::vec![None; 2 * ScriptArgs::width(count)]);
        let argv = ExecArgs::build(argv, &mut slots).unwrap();
        let scripts = ScriptArgs::build(FILES, &argv, &mut more).unwrap();
        assert!(scripts.get(2, c"").is_none());
        let array = scripts.get(1, c"./run").unwrap();
        let (last, pointers) = array.pointers().split_last().unwrap();
        assert!(last.is_none() && pointers.iter().all(Option::is_some));
        assert_eq!(pointers.len(), array.strings().count());
        array.strings().map(Vec::from).collect()
    }

    #[test]
    fn shell_and_script_replace_the_first_argument() {
        assert_eq!(second(b"run\0-x\0\0"), [&b"/bin/sh"[..], b"./run", b"-x", b""]);
        assert_eq!(second(b"run\0"), [&b"/bin/sh"[..], b"./run"]);
        assert_eq!(second(b""), [&b"/bin/sh"[..], b"./run"]);
    }

    #[test]
    fn too_few_slots_are_an_error() {
        let (mut slots, mut more) = ([None; 2], [None; 5]);
        let argv = ExecArgs::build(b"run\0", &mut slots).unwrap();
        assert!(ScriptArgs::build(FILES, &argv, &mut more).is_none());
    }
}
