//! Questions and answers on the wire.

use std::str::FromStr;

use hickory_proto::op::{
    Header, HeaderCounts, Message, MessageType, Metadata, OpCode, ResponseCode,
};
use hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use crate::forward::Forwarder;
use crate::zone::{Answer, Data, Kind, Objects, Zone};

/// Seconds for which an answer may be kept.
const TTL: u32 = 5;
/// How many CNAMEs of our own lead to one answer.
const ALIAS_DEPTH: usize = 4;

/// Answers from the zone, forwards the rest.
pub struct Handler<O> {
    zone: Zone<O>,
    forwarder: Forwarder,
}

/// What goes back to the client.
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
}

impl Reply {
    fn empty(code: ResponseCode) -> Self {
        Self { code, authoritative: false, answers: Vec::new(), authorities: Vec::new() }
    }
}

impl<O: Objects> Handler<O> {
    /// A handler for one zone.
    pub fn new(zone: Zone<O>, forwarder: Forwarder) -> Self {
        Self { zone, forwarder }
    }

    async fn reply(&self, request: &Request) -> Reply {
        if request.metadata.op_code != OpCode::Query {
            return Reply::empty(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else {
            return Reply::empty(ResponseCode::FormErr);
        };
        let question = info.query.original();
        let (name, wanted) = (question.name().clone(), question.query_type());
        match self.zone.answer(&labels(&name), kind(wanted)) {
            Answer::Records(data) => self.found(&name, wanted, data),
            Answer::NoSuchName => Reply {
                code: ResponseCode::NXDomain,
                authoritative: true,
                answers: Vec::new(),
                authorities: self.soa(),
            },
            Answer::NotOurs => self.forward(request).await,
        }
    }

    fn found(&self, name: &Name, wanted: RecordType, data: Vec<Data>) -> Reply {
        let mut answers: Vec<Record> = data.iter().filter_map(|data| record(name, data)).collect();
        let mut alias = match data.as_slice() {
            [Data::Cname(target)] if wanted != RecordType::CNAME => Name::from_str(target).ok(),
            _ => None,
        };
        // An alias to a name of this cluster is resolved here; other targets are the client's to ask.
        for _ in 0..ALIAS_DEPTH {
            let Some(target) = alias.take() else { break };
            if let Answer::Records(more) = self.zone.answer(&labels(&target), kind(wanted)) {
                answers.extend(more.iter().filter_map(|data| record(&target, data)));
                if let [Data::Cname(next)] = more.as_slice() {
                    alias = Name::from_str(next).ok();
                }
            }
        }
        let authorities = if answers.is_empty() { self.soa() } else { Vec::new() };
        Reply { code: ResponseCode::NoError, authoritative: true, answers, authorities }
    }

    async fn forward(&self, request: &Request) -> Reply {
        let tcp = request.protocol() == hickory_server::net::xfer::Protocol::Tcp;
        let Some(answer) = self.forwarder.ask(request.as_slice(), tcp).await else {
            return Reply::empty(ResponseCode::ServFail);
        };
        match Message::from_vec(&answer) {
            Ok(message) => Reply {
                code: message.metadata.response_code,
                authoritative: false,
                answers: message.answers.clone(),
                authorities: message.authorities.clone(),
            },
            Err(_) => Reply::empty(ResponseCode::ServFail),
        }
    }

    /// The zone's SOA, which tells clients for how long "no" may be kept.
    fn soa(&self) -> Vec<Record> {
        let domain = self.zone.domain();
        let name = |text: &str| Name::from_str(text).ok();
        let (Some(zone), Some(server), Some(mail)) = (
            name(&format!("{domain}.")),
            name(&format!("ns.dns.{domain}.")),
            name(&format!("hostmaster.{domain}.")),
        ) else {
            return Vec::new();
        };
        let soa = SOA::new(server, mail, 1, 7200, 1800, 86_400, TTL);
        vec![Record::from_rdata(zone, TTL, RData::SOA(soa))]
    }
}

fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

fn kind(wanted: RecordType) -> Kind {
    match wanted {
        RecordType::A => Kind::A,
        RecordType::SRV => Kind::Srv,
        RecordType::PTR => Kind::Ptr,
        _ => Kind::Other,
    }
}

fn record(name: &Name, data: &Data) -> Option<Record> {
    let absolute = |text: &str| Name::from_str(&format!("{text}.")).ok();
    let rdata = match data {
        Data::A(ip) => RData::A(A(*ip)),
        Data::Cname(target) => RData::CNAME(CNAME(absolute(target)?)),
        Data::Srv(port, target) => RData::SRV(SRV::new(0, 100, *port, absolute(target)?)),
        Data::Ptr(target) => RData::PTR(PTR(absolute(target)?)),
    };
    Some(Record::from_rdata(name.clone(), TTL, rdata))
}

#[async_trait::async_trait]
impl<O: Objects + Unpin> RequestHandler for Handler<O> {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let reply = self.reply(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = true;
        let message = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &reply.answers,
            &reply.authorities,
            [],
            [],
        );
        response.send_response(message).await.unwrap_or_else(|error| {
            tracing::debug!("the client is gone: {error}");
            let mut metadata = Metadata::new(metadata.id, MessageType::Response, OpCode::Query);
            metadata.response_code = ResponseCode::ServFail;
            ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
        })
    }
}
