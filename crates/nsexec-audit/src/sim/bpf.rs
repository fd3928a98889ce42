//! The kernel's check of a seccomp filter (seccomp_check_filter and bpf_check_classic).

use nsexec::sys::types::BpfInstruction;

/// `BPF_MAXINSNS`: the most instructions that a filter may have.
pub(super) const LENGTH_MAX: usize = 4096;

/// The size of the structure that a filter reads: struct seccomp_data.
const DATA_SIZE: u32 = 64;

/// The number of words of a filter's memory: `BPF_MEMWORDS`.
const MEMORY_WORDS: u32 = 16;

// The operations of linux/bpf_common.h, by name.
const LOAD_DATA: u16 = 0x20;
const RETURN: [u16; 2] = [0x06, 0x16];
const JUMP: u16 = 0x05;
const CONDITIONAL_JUMPS: [u16; 8] = [0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d];
const DIVIDE: u16 = 0x34;
const SHIFTS: [u16; 2] = [0x64, 0x74];
const MEMORY: [u16; 4] = [0x60, 0x61, 0x02, 0x03];
/// The operations that are valid with every operand: loads of a constant and of the length of the data,
/// arithmetic, and moves between the registers.
const OTHERS: [u16; 22] = [
    0x00, 0x01, 0x80, 0x81, 0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x3c, 0x54, 0x5c, 0x44, 0x4c, 0xa4, 0xac,
    0x6c, 0x7c, 0x84, 0x07, 0x87,
];

/// Returns whether the kernel accepts the program. The order of stores and loads of the filter's memory is
/// not checked.
pub(super) fn is_valid(program: &[BpfInstruction]) -> bool {
    let returns = program.last().is_some_and(|last| RETURN.contains(&last.code));
    let all_valid = program.iter().enumerate().all(|(at, instruction)| {
        let BpfInstruction { code, jt, jf, k } = *instruction;
        // The number of instructions that a jump may skip: at least one must follow its target.
        let after = program.len() - at - 1;
        match code {
            LOAD_DATA => k < DATA_SIZE && k % 4 == 0,
            JUMP => usize::try_from(k).is_ok_and(|k| k < after),
            DIVIDE => k != 0,
            code if CONDITIONAL_JUMPS.contains(&code) => usize::from(jt.max(jf)) < after,
            code if SHIFTS.contains(&code) => k < 32,
            code if MEMORY.contains(&code) => k < MEMORY_WORDS,
            code => RETURN.contains(&code) || OTHERS.contains(&code),
        }
    });
    returns && all_valid
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn step(code: u16, jt: u8, jf: u8, k: u32) -> BpfInstruction {
        BpfInstruction { code, jt, jf, k }
    }

    const ALLOW: BpfInstruction = step(0x06, 0, 0, 0x7fff_0000);

    #[test]
    fn usual_filter_is_valid() {
        assert!(is_valid(&[step(LOAD_DATA, 0, 0, 0), step(0x15, 0, 1, 59), step(0x06, 0, 0, 0), ALLOW]));
    }

    #[test]
    fn operands_and_jumps_are_checked() {
        for first in [
            step(LOAD_DATA, 0, 0, 2),
            step(LOAD_DATA, 0, 0, 64),
            step(JUMP, 0, 0, 1),
            step(0x15, 1, 0, 0),
            step(DIVIDE, 0, 0, 0),
            step(0x64, 0, 0, 32),
            step(0x60, 0, 0, 16),
            step(0x28, 0, 0, 0),
            step(0xffff, 0, 0, 0),
        ] {
            assert!(!is_valid(&[first, ALLOW]), "{first:?}");
        }
        assert!(is_valid(&[step(JUMP, 0, 0, 0), ALLOW]));
        assert!(is_valid(&[step(0x15, 0, 0, 0), ALLOW]));
    }

    #[test]
    fn program_without_a_return_is_invalid() {
        assert!(!is_valid(&[]));
        assert!(!is_valid(&[ALLOW, step(0x00, 0, 0, 0)]));
    }
}
