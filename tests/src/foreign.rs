//! Enters: a wish for somebody else's program at a TCX hook. Leaves: one that counts its runs and ends as told.

use std::{io, os::fd::OwnedFd};

use anyhow::{Context, Result};

use crate::sys::{TcxHook, bpf_classifier, bpf_count, bpf_read_count, number, tcx_link};

/// What the program does with each packet once it has counted it.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// Lets the programs behind it decide: `TCX_NEXT`.
    Next,
    /// Ends the chain and lets the packet pass: `TCX_PASS`.
    Pass,
    /// Sends the packet out by the interface with this index: `bpf_redirect`.
    Redirect(u32),
}

/// Where in the chain the program goes.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Before all others.
    Head,
    /// Behind all others.
    Tail,
}

/// A program at a TCX hook; detached when dropped.
#[derive(Debug)]
pub struct Foreign {
    runs: OwnedFd,
    _link: OwnedFd,
}

impl Foreign {
    /// Attaches a program to the interface with this index of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// The kernel refuses one of the steps.
    ///
    /// # Minimum kernel version
    ///
    /// 6.6.
    pub fn attach(interface: u32, hook: TcxHook, place: Place, ending: Ending) -> Result<Self> {
        let runs = bpf_count().context("make a map")?;
        let program = bpf_classifier(&code(&runs, ending)?).context("load a program")?;
        // `BPF_F_BEFORE` and `BPF_F_AFTER` without a program that they relate to.
        let flags = match place {
            Place::Head => 1 << 3,
            Place::Tail => 1 << 4,
        };
        let link = tcx_link(&program, interface, hook, flags).context("attach a program")?;
        Ok(Self { runs, _link: link })
    }

    /// How often the program ran.
    ///
    /// # Errors
    ///
    /// The kernel cannot tell.
    pub fn runs(&self) -> Result<u64> {
        Ok(bpf_read_count(&self.runs)?)
    }
}

/// A program that adds one to the count in `runs`.
fn code(runs: &OwnedFd, ending: Ending) -> io::Result<Vec<[u8; 8]>> {
    // r1 = address of the count; r2 = 1; *r1 += r2, in one go.
    let mut code = vec![
        instruction(0x18, 1, 2, 0, number(runs)?.cast_signed()),
        instruction(0, 0, 0, 0, 0),
        instruction(0xb7, 2, 0, 0, 1),
        instruction(0xdb, 1, 2, 0, 0),
    ];
    match ending {
        Ending::Next => code.push(instruction(0xb7, 0, 0, 0, -1)),
        Ending::Pass => code.push(instruction(0xb7, 0, 0, 0, 0)),
        // r1 = interface; r2 = 0, which is "out"; call helper 23.
        Ending::Redirect(interface) => code.extend([
            instruction(0xb7, 1, 0, 0, interface.cast_signed()),
            instruction(0xb7, 2, 0, 0, 0),
            instruction(0x85, 0, 0, 0, 23),
        ]),
    }
    code.push(instruction(0x95, 0, 0, 0, 0));
    Ok(code)
}

/// A `struct bpf_insn`.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let registers =
        if cfg!(target_endian = "little") { source << 4 | destination } else { destination << 4 | source };
    let ([o1, o2], [i1, i2, i3, i4]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    [code, registers, o1, o2, i1, i2, i3, i4]
}
