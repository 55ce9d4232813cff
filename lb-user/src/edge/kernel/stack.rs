//! What the programs take of the stack, as kernel 6.1 reckons it, which has less room for them than later ones: a program
//! that loads here may be refused there.

use std::collections::BTreeSet;

use aya_obj::{Object, generated::bpf_insn};

use super::{LEAN_OBJECT, OBJECT};

/// Most that a program and the functions it calls may take; bytes (`MAX_BPF_STACK`).
const LIMIT: u32 = 512;

/// What kernels round each function's part up to; bytes. Later ones round up to 16 where they compile to machine code.
const GRAIN: u32 = 32;

/// The frame pointer.
const FP: u8 = 10;

/// `call` of a function of the program's own: `BPF_JMP | BPF_CALL` with `BPF_PSEUDO_CALL`.
fn callee(at: usize, instruction: bpf_insn) -> Option<usize> {
    let is_call = instruction.code == 0x85 && instruction.src_reg() == 1;
    is_call.then(|| (at + 1).strict_add_signed(instruction.imm as isize))
}

/// What one function takes: the lowest address below the frame pointer that it uses; bytes.
fn frame(code: &[bpf_insn]) -> u32 {
    let mut lowest = 0;
    // Registers that were made of the frame pointer and nothing else.
    let mut copies = BTreeSet::from([FP]);
    for instruction in code {
        let (class, destination, source) =
            (instruction.code & 7, instruction.dst_reg(), instruction.src_reg());
        let reached = match (class, instruction.code) {
            // Loads through a register, and stores.
            (1, _) if copies.contains(&source) => i32::from(instruction.off),
            (2 | 3, _) if copies.contains(&destination) => i32::from(instruction.off),
            // 64-bit additions of a number.
            (7, 0x07) if copies.contains(&destination) => instruction.imm,
            _ => 0,
        };
        lowest = lowest.min(reached);
        match (class, instruction.code) {
            (7, 0xbf) if source == FP => {
                copies.insert(destination);
            }
            (0 | 1 | 4 | 7, _) => {
                copies.retain(|copy| *copy == FP || *copy != destination);
            }
            _ => {}
        }
    }
    lowest.unsigned_abs()
}

/// What the function that begins at an instruction takes with all that it calls; bytes.
fn depth(code: &[bpf_insn], begins: &BTreeSet<usize>, start: usize) -> u32 {
    let end = begins.range(start + 1..).next().copied().unwrap_or(code.len());
    let own = &code[start..end];
    let callees = own.iter().enumerate().filter_map(|(at, instruction)| callee(start + at, *instruction));
    let deepest = callees.map(|callee| depth(code, begins, callee)).max().unwrap_or(0);
    frame(own).max(1).next_multiple_of(GRAIN) + deepest
}

#[test]
fn every_program_fits_the_stack_of_kernel_6_1() {
    for object in [OBJECT, LEAN_OBJECT] {
        let mut object = Object::parse(object).unwrap();
        let sections = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_calls(&sections).unwrap();
        assert!(object.programs.len() > 5);
        for (name, program) in &object.programs {
            let code = &object.functions[&program.function_key()].instructions;
            let called = code.iter().enumerate().filter_map(|(at, instruction)| callee(at, *instruction));
            let begins = BTreeSet::from_iter(called.chain([0]));
            let taken = depth(code, &begins, 0);
            println!("{name}: {taken} bytes of {LIMIT}");
            assert!(taken <= LIMIT, "{name} takes {taken} bytes of stack, {LIMIT} are allowed");
        }
    }
}
