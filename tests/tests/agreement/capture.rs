//! Enters: capture files of the user. Leaves: the Ethernet frames in them.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pcap_parser::pcapng::Block;
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};

/// Reads the frames of all files that `MIRROR_AGREE_CAPTURES` names. Packets that begin with IP are given an Ethernet
/// header; those of other link types are left out, and said to be.
pub(crate) fn frames() -> Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    let Some(paths) = env::var_os("MIRROR_AGREE_CAPTURES") else { return Ok(frames) };
    for path in env::split_paths(&paths) {
        for file in files(&path)? {
            let mut skipped = 0_u64;
            let before = frames.len();
            read(&file, &mut |link_type, bytes| match ethernet(link_type, bytes) {
                Some(frame) => frames.push(frame),
                None => skipped += 1,
            })
            .with_context(|| format!("read {}", file.display()))?;
            println!("{}: {} frames, {skipped} of other link types", file.display(), frames.len() - before);
        }
    }
    Ok(frames)
}

/// A file, or the capture files in a folder and below.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
        let path = entry?.path();
        let is_capture =
            path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng" || kind == "cap");
        if path.is_dir() || is_capture {
            found.extend(files(&path)?);
        }
    }
    found.sort();
    Ok(found)
}

fn ethernet(link_type: Linktype, bytes: &[u8]) -> Option<Vec<u8>> {
    match link_type.0 {
        1 => Some(bytes.to_vec()),
        12 | 14 | 101 | 228 | 229 => {
            let ether_type: u16 = if bytes.first()? >> 4 == 6 { 0x86dd } else { 0x0800 };
            Some([&[2; 12], &ether_type.to_be_bytes()[..], bytes].concat())
        }
        _ => None,
    }
}

/// Hands on each frame as far as it was captured. A file that ends within a frame, or turns to nonsense, is read up to
/// there.
fn read(path: &Path, sink: &mut impl FnMut(Linktype, &[u8])) -> Result<()> {
    let mut reader =
        create_reader(1 << 20, File::open(path)?).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let mut link_types = Vec::new();
    loop {
        let is_at_end = reader.reader_exhausted();
        let consumed = match reader.next() {
            Ok((consumed, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => link_types = vec![header.network],
                    PcapBlockOwned::Legacy(frame) => sink(link_types[0], frame.data),
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => link_types.clear(),
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                        link_types.push(interface.linktype);
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        let len = usize::try_from(packet.caplen)?.min(packet.data.len());
                        if let Some(link_type) = link_types.get(usize::try_from(packet.if_id)?) {
                            sink(*link_type, &packet.data[..len]);
                        }
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                consumed
            }
            Err(PcapError::Incomplete(_)) if !is_at_end => {
                reader.refill().map_err(|error| anyhow::anyhow!("{error:?}"))?;
                continue;
            }
            Err(_) => return Ok(()),
        };
        reader.consume(consumed);
    }
}
