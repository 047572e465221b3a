//! Enters: nothing. Leaves: the kernel program's object, as `cargo xtask build` made it.

/// The eBPF object that the agent carries: an ELF file with BTF, aligned for aya's reader.
pub static EBPF_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mirror-ebpf.o"));
