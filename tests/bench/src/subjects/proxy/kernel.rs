//! Asks the kernel's nftables over netlink: one lookup costs microseconds, where `nft` would read the
//! whole table.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// `linux/netlink.h`
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLA_F_NESTED: u16 = 1 << 15;
/// `linux/netfilter/nfnetlink.h`: NFNL_SUBSYS_NFTABLES in the type's upper half.
const NFTABLES: u16 = 10 << 8;
/// The group of NFNLGRP_NFTABLES as a bit.
const NFTABLES_GROUP: u32 = 1 << (7 - 1);
const NFPROTO_IPV4: u8 = 2;
/// `linux/netfilter/nf_tables.h`
const NFT_MSG_NEWRULE: u16 = NFTABLES | 6;
const NFT_MSG_NEWSETELEM: u16 = NFTABLES | 12;
const NFT_MSG_GETSETELEM: u16 = NFTABLES | 13;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
/// Header of a message: length, type, flags, sequence number, port.
const HEADER: usize = 16;

/// Names that ours and upstream's share.
const TABLE: &str = "kube-proxy";
const MAP: &str = "service-ips";
const TCP: u8 = 6;

/// Messages that may wait; a transaction of one change makes a few.
const BUFFER: usize = 8 << 20;
const ANSWER_WITHIN: i64 = 5;

/// Looks elements up.
pub struct Kernel {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Kernel {
    /// # Errors
    /// Not permitted.
    pub fn open() -> anyhow::Result<Self> {
        let socket = netlink(0, TimeVal::seconds(ANSWER_WITHIN))?;
        Ok(Self { socket, buffer: vec![0; 1 << 16] })
    }

    /// True when the map of Services' addresses leads somewhere for this one.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn has_service(&mut self, address: Ipv4Addr) -> anyhow::Result<bool> {
        let request = lookup(address, super::PORT);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty()).context("asking the kernel")?;
        let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty());
        let answer = &self.buffer[..length.context("waiting for the kernel's answer")?];
        let message = messages(answer).next().context("an answer without a message")?;
        match message.kind {
            NFT_MSG_NEWSETELEM => Ok(true),
            NLMSG_ERROR => {
                let code = message.body.first_chunk().context("an error without its code")?;
                match Errno::from_raw(-i32::from_ne_bytes(*code)) {
                    Errno::ENOENT => Ok(false),
                    error => Err(error).context("looking up an element"),
                }
            }
            kind => bail!("an answer of type {kind:#x}"),
        }
    }
}

/// Hears of every change of the ruleset.
pub struct Changes {
    socket: OwnedFd,
}

impl Changes {
    /// Changes from now on.
    ///
    /// # Errors
    /// Not permitted.
    pub fn listen() -> anyhow::Result<Self> {
        let socket = netlink(NFTABLES_GROUP, TimeVal::milliseconds(100))?;
        setsockopt(&socket, RcvBufForce, &BUFFER).context("enlarging a buffer")?;
        Ok(Self { socket })
    }

    /// Waits until a rule or a map's element with this address is announced, which is when it is in force.
    ///
    /// # Errors
    /// Not in time, or messages were lost.
    pub fn wait_for(&self, address: Ipv4Addr, within: Duration) -> anyhow::Result<Instant> {
        let mut buffer = vec![0; 1 << 20];
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                length => length.context("listening to the kernel")?,
            };
            let now = Instant::now();
            if messages(&buffer[..length]).any(|message| message.leads_to(address)) {
                return Ok(now);
            }
        }
        bail!("not in the kernel within {within:?}")
    }
}

fn netlink(groups: u32, timeout: TimeVal) -> anyhow::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )
    .context("opening a netlink socket")?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("joining netlink")?;
    setsockopt(&socket, ReceiveTimeout, &timeout).context("setting a timeout")?;
    Ok(socket)
}

struct Message<'a> {
    kind: u16,
    body: &'a [u8],
}

impl Message<'_> {
    /// The address is an operand of the rule, or in the element's key or value, in network byte
    /// order.
    fn leads_to(&self, address: Ipv4Addr) -> bool {
        let announces = [NFT_MSG_NEWRULE, NFT_MSG_NEWSETELEM].contains(&self.kind);
        announces && self.body.windows(4).any(|bytes| bytes == address.octets())
    }
}

/// The messages in what was received at once.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body })
    })
}

/// A question for one element of the map: address, protocol, port, each padded to four bytes.
fn lookup(address: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut key = address.octets().to_vec();
    key.extend([TCP, 0, 0, 0]);
    key.extend(port.to_be_bytes());
    key.extend([0, 0]);
    let value = attribute(NFTA_DATA_VALUE, &key);
    let key = attribute(NFTA_SET_ELEM_KEY | NLA_F_NESTED, &value);
    let element = attribute(NFTA_LIST_ELEM | NLA_F_NESTED, &key);
    let mut body = vec![NFPROTO_IPV4, 0, 0, 0];
    body.extend(attribute(NFTA_SET_ELEM_LIST_TABLE, &terminated(TABLE)));
    body.extend(attribute(NFTA_SET_ELEM_LIST_SET, &terminated(MAP)));
    body.extend(attribute(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED, &element));

    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(NFT_MSG_GETSETELEM.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// Length, type, value, padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_say_their_length_without_padding() {
        assert_eq!(attribute(2, b"abc\0x"), [9, 0, 2, 0, b'a', b'b', b'c', 0, b'x', 0, 0, 0]);
    }

    #[test]
    fn rules_and_elements_are_found_by_an_address_among_other_messages() {
        let wanted = Ipv4Addr::new(10, 230, 0, 1);
        let message = |kind: u16, body: &[u8]| {
            let length = (HEADER + body.len()) as u32;
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let found = |bytes: &[u8]| messages(bytes).any(|message| message.leads_to(wanted));
        let chain = message(NFTABLES | 3, &wanted.octets());
        let other = message(NFT_MSG_NEWRULE, &[1, 2, 3, 4, 5]);
        assert!(!found(&[chain.clone(), other.clone()].concat()));
        let rule = message(NFT_MSG_NEWRULE, &[0, 0, 10, 230, 0, 1, 0]);
        assert!(found(&[chain, other, rule].concat()));
        assert!(found(&message(NFT_MSG_NEWSETELEM, &wanted.octets())));
        assert!(!found(&[1, 0, 0]));
    }
}
