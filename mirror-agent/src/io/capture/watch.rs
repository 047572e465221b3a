//! Enters: rtnetlink's notifications about interfaces, addresses and routes. Leaves: that something changed, and which
//! interfaces have gone. What it is now has to be asked for: notifications can be lost, and then the kernel only says
//! so.

use std::{collections::BTreeSet, io};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::unix::AsyncFd;

use crate::io::capture::{
    links::is_default_route,
    netlink::{RECEIVE_BYTES, next_message, read_u32},
    sys,
};

/// Datagrams read in one go before others get their turn.
const MAX_DATAGRAMS: usize = 256;

/// `struct ifinfomsg` of a bridge's or other family's view of an interface, which comes and goes by itself.
const AF_UNSPEC: u8 = 0;

/// Whether the default routes matter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Routes {
    /// They do.
    Watched,
    /// They do not: a router's million of them would wake the agent for nothing.
    Ignored,
}

/// A subscription to what changes in this network namespace.
#[derive(Debug)]
pub(super) struct LinkWatch {
    socket: AsyncFd<Socket>,
}

/// What some notifications say together.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct News {
    /// Whether anything changed that may matter.
    pub(super) is_any: bool,
    /// Indices of the interfaces that were deleted or left the namespace.
    pub(super) vanished: BTreeSet<u32>,
}

impl LinkWatch {
    /// Subscribes. Must be called within a tokio runtime.
    pub(super) fn open(routes: Routes) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        let mut groups = vec![libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR];
        if routes == Routes::Watched {
            groups.extend([libc::RTNLGRP_IPV4_ROUTE, libc::RTNLGRP_IPV6_ROUTE]);
        }
        for group in groups {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket: sys::readable(socket)? })
    }

    /// Waits until something changed. Nothing is lost where the wait is given up.
    pub(super) async fn changed(&self) -> io::Result<News> {
        loop {
            let mut guard = self.socket.readable().await?;
            match guard.try_io(|socket| read_news(socket.get_ref())) {
                Ok(news) => {
                    let news = news?;
                    if news.is_any {
                        return Ok(news);
                    }
                }
                // Not ready after all.
                Err(_would_block) => {}
            }
        }
    }
}

/// Reads what is there. Where the kernel had to drop notifications, that is news too.
fn read_news(socket: &Socket) -> io::Result<News> {
    let mut news = News::default();
    let mut datagram = Vec::with_capacity(RECEIVE_BYTES);
    for number in 0..MAX_DATAGRAMS {
        datagram.clear();
        match socket.recv(&mut datagram, 0) {
            Ok(_) => news.note(&datagram),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => news.is_any = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && number > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(news)
}

impl News {
    fn note(&mut self, datagram: &[u8]) {
        let mut rest = datagram;
        while let Some(message) = next_message(&mut rest) {
            match message.kind {
                libc::RTM_NEWROUTE | libc::RTM_DELROUTE => self.is_any |= is_default_route(message.body),
                libc::RTM_DELLINK if message.body.first() == Some(&AF_UNSPEC) => {
                    self.is_any = true;
                    self.vanished.extend(read_u32(message.body, 4));
                }
                _ => self.is_any = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(16 + body.len()).unwrap();
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(body);
        bytes
    }

    fn news(datagram: &[u8]) -> News {
        let mut news = News::default();
        news.note(datagram);
        news
    }

    #[test]
    fn deleted_interfaces_are_told_by_their_index() {
        let deleted = |family: u8, index: u32| {
            let mut body = [0; 16];
            body[0] = family;
            body[4..8].copy_from_slice(&index.to_ne_bytes());
            message(libc::RTM_DELLINK, &body)
        };
        let both = [deleted(0, 7), deleted(0, 9)].concat();
        assert_eq!(news(&both), News { is_any: true, vanished: BTreeSet::from([7, 9]) });
        // A port that leaves its bridge is a deletion in the bridge's own family.
        assert_eq!(news(&deleted(7, 7)), News { is_any: true, vanished: BTreeSet::new() });
    }

    #[test]
    fn of_routes_only_default_ones_are_news() {
        let route = |dst_len: u8| message(libc::RTM_NEWROUTE, &[2, dst_len, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0]);
        assert!(!news(&route(24)).is_any);
        assert!(news(&route(0)).is_any);
    }
}
