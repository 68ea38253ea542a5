//! IP addresses and networks: `ip`, `isIP`, `cidr`, `isCIDR` and what can be asked of them.

use std::net::IpAddr;

use cel::common::types::{STRING_TYPE, Type};
use cel::objects::Opaque;
use cel::{DeclarationError, Env, ExecutionError, Value};
use ipnet::IpNet;

use super::{Args, Returned, failed, free, member, opaque, own, returned, text, values};

/// Names of the types.
const ADDRESS: &str = "net.IP";
const NETWORK: &str = "net.CIDR";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Address(IpAddr);

impl Opaque for Address {
    fn runtime_type_name(&self) -> &str {
        ADDRESS
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Network(IpNet);

impl Opaque for Network {
    fn runtime_type_name(&self) -> &str {
        NETWORK
    }
}

pub(super) fn extension(environment: &mut Env) -> Result<(), DeclarationError> {
    let address = || Type::new_opaque_type(ADDRESS);
    let network = || Type::new_opaque_type(NETWORK);
    free(environment, "ip", vec![STRING_TYPE], ip)?;
    free(environment, "isIP", vec![STRING_TYPE], is_ip)?;
    free(environment, "cidr", vec![STRING_TYPE], cidr)?;
    free(environment, "isCIDR", vec![STRING_TYPE], is_cidr)?;
    free(environment, "string", vec![address()], address_text)?;
    free(environment, "string", vec![network()], network_text)?;
    member(environment, "family", address(), vec![], family)?;
    member(environment, "isUnspecified", address(), vec![], is_unspecified)?;
    member(environment, "isLoopback", address(), vec![], is_loopback)?;
    member(environment, "isGlobalUnicast", address(), vec![], is_global_unicast)?;
    member(environment, "ip", network(), vec![], network_ip)?;
    member(environment, "masked", network(), vec![], masked)?;
    member(environment, "prefixLength", network(), vec![], prefix_length)?;
    for argument in [address(), STRING_TYPE] {
        member(environment, "containsIP", network(), vec![argument], contains_ip)?;
    }
    for argument in [network(), STRING_TYPE] {
        member(environment, "containsCIDR", network(), vec![argument], contains_cidr)?;
    }
    Ok(())
}

/// An address as Kubernetes takes it: no zones, no IPv4 in IPv6, no leading zeros.
fn parse_ip(given: &Value) -> Result<IpAddr, ExecutionError> {
    let given = text(given)?;
    let parsed = given.parse::<IpAddr>().ok().filter(|ip| ip.to_canonical() == *ip);
    parsed.ok_or_else(|| {
        failed(
            "ip",
            format!(
                "IP Address {given:?} parse error during conversion from string: unable to parse IP"
            ),
        )
    })
}

fn parse_cidr(given: &Value) -> Result<IpNet, ExecutionError> {
    let given = text(given)?;
    given.parse().map_err(|e| {
        failed("cidr", format!("network address parse error during conversion from string: {e}"))
    })
}

fn ip<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [given] = values(args)?;
    opaque(Address(parse_ip(&given)?))
}

fn is_ip<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [given] = values(args)?;
    returned(parse_ip(&given).is_ok())
}

fn cidr<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [given] = values(args)?;
    opaque(Network(parse_cidr(&given)?))
}

fn is_cidr<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [given] = values(args)?;
    returned(parse_cidr(&given).is_ok())
}

fn address(args: Args<'_, '_>) -> Result<IpAddr, ExecutionError> {
    let [this] = values(args)?;
    Ok(own::<Address>(&this)?.0)
}

fn network(args: Args<'_, '_>) -> Result<IpNet, ExecutionError> {
    let [this] = values(args)?;
    Ok(own::<Network>(&this)?.0)
}

fn address_text<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    returned(address(args)?.to_string())
}

fn network_text<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    returned(network(args)?.to_string())
}

fn family<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    returned(if address(args)?.is_ipv4() { 4_i64 } else { 6 })
}

fn is_unspecified<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    returned(address(args)?.is_unspecified())
}

fn is_loopback<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    returned(address(args)?.is_loopback())
}

fn is_global_unicast<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let address = address(args)?;
    let link_local = match address {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let other = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    returned(!link_local && !other)
}

fn network_ip<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    opaque(Address(network(args)?.addr()))
}

fn masked<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    opaque(Network(network(args)?.trunc()))
}

fn prefix_length<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    returned(i64::from(network(args)?.prefix_len()))
}

fn contains_ip<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [this, other] = values(args)?;
    let other = match &other {
        Value::String(_) => parse_ip(&other)?,
        other => own::<Address>(other)?.0,
    };
    returned(own::<Network>(&this)?.0.contains(&other))
}

fn contains_cidr<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [this, other] = values(args)?;
    let other = match &other {
        Value::String(_) => parse_cidr(&other)?,
        other => own::<Network>(other)?.0,
    };
    returned(own::<Network>(&this)?.0.contains(&other))
}
