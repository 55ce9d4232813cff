//! DNS messages as far as a check needs them (RFC 1035): one question, and what an answer says. No sockets.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A domain name, without the trailing dot; the root is empty. Letters' case is kept and does not count.
#[derive(Clone, Debug, Eq)]
pub struct DomainName(String);

/// A text that is no [`DomainName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a domain name has labels of 1 to 63 visible characters between dots, and at most 253 in all")]
pub struct BadDomainName;

impl FromStr for DomainName {
    type Err = BadDomainName;

    fn from_str(text: &str) -> Result<Self, BadDomainName> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let good = |label: &str| {
            (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
        };
        let is_root = text == ".";
        if is_root || name.len() <= 253 && name.split('.').all(good) {
            Ok(Self(name.to_owned()))
        } else {
            Err(BadDomainName)
        }
    }
}

impl PartialEq for DomainName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { &self.0 })
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The name.
    pub name: DomainName,
    /// The type.
    pub record: Record,
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.record.word())
    }
}

/// Types of records that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Record {
    /// An IPv4 address.
    A = 1,
    /// A name server.
    Ns = 2,
    /// The name behind an alias.
    Cname = 5,
    /// The start of a zone.
    Soa = 6,
    /// A name for an address.
    Ptr = 12,
    /// A mail exchanger.
    Mx = 15,
    /// Text.
    Txt = 16,
    /// An IPv6 address.
    Aaaa = 28,
    /// Where a service is.
    Srv = 33,
}

impl Record {
    /// Their words.
    pub const WORDS: [(&'static str, Self); 9] = [
        ("A", Self::A),
        ("AAAA", Self::Aaaa),
        ("CNAME", Self::Cname),
        ("MX", Self::Mx),
        ("NS", Self::Ns),
        ("PTR", Self::Ptr),
        ("SOA", Self::Soa),
        ("SRV", Self::Srv),
        ("TXT", Self::Txt),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, record)| *record == self).map_or("", |(word, _)| word)
    }

    /// What a text means as the data of such a record; `None` if it is none, or cannot be compared.
    pub fn data(self, text: &str) -> Option<Data> {
        match self {
            Self::A => text.parse::<Ipv4Addr>().ok().map(|address| Data::Address(address.into())),
            Self::Aaaa => text.parse::<Ipv6Addr>().ok().map(|address| Data::Address(address.into())),
            Self::Cname | Self::Ns | Self::Ptr => text.parse().ok().map(Data::Name),
            Self::Txt => Some(Data::Text(text.to_owned())),
            Self::Mx | Self::Soa | Self::Srv => None,
        }
    }
}

/// A response code (RFC 6895 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u8);

impl Code {
    /// No error.
    pub const NO_ERROR: Self = Self(0);

    /// Their words.
    pub const WORDS: [(&'static str, Self); 6] = [
        ("NOERROR", Self::NO_ERROR),
        ("FORMERR", Self(1)),
        ("SERVFAIL", Self(2)),
        ("NXDOMAIN", Self(3)),
        ("NOTIMP", Self(4)),
        ("REFUSED", Self(5)),
    ];
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::WORDS.iter().find(|(_, code)| code == self) {
            Some((word, _)) => f.write_str(word),
            None => write!(f, "code {}", self.0),
        }
    }
}

/// The data of a record, as far as it can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Of A and AAAA.
    Address(IpAddr),
    /// Of CNAME, NS and PTR.
    Name(DomainName),
    /// Of TXT: its strings, joined.
    Text(String),
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => write!(f, "{name}"),
            Self::Text(text) => write!(f, "\"{}\"", text.escape_debug()),
        }
    }
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub code: Code,
    /// Whether records were left out because they did not fit.
    pub is_truncated: bool,
    /// How many records of the type that was asked for.
    pub count: usize,
    /// The data of those that can be compared.
    pub data: Vec<Data>,
}

/// Why a datagram is no answer to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It ends too early, or a name in it does not end.
    #[error("it is no whole DNS message")]
    Malformed,
    /// Nobody asked that.
    #[error("it answers another question")]
    Other,
}

/// Bytes of the header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
const INTERNET: u16 = 1;

/// Names have at most 127 labels, and so many pointers at most lead to them.
const MAX_STEPS: usize = 255;

impl Query {
    /// The message that asks.
    pub fn message(&self, id: u16) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER + self.name.0.len() + 6);
        message.extend(id.to_be_bytes());
        message.extend([RECURSION_DESIRED, 0]);
        message.extend([0, 1, 0, 0, 0, 0, 0, 0]);
        for label in self.name.0.split('.').filter(|label| !label.is_empty()) {
            // At most 63 bytes.
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend((self.record as u16).to_be_bytes());
        message.extend(INTERNET.to_be_bytes());
        message
    }

    /// What a message answers to this query.
    ///
    /// # Errors
    /// [`NoAnswer`]
    pub fn read(&self, id: u16, message: &[u8]) -> Result<Answer, NoAnswer> {
        let mut reader = Reader { message, at: 0 };
        let ids = reader.u16()?;
        let [high, low] = reader.u16()?.to_be_bytes();
        if ids != id || high & (RESPONSE | OPCODE) != RESPONSE {
            return Err(NoAnswer::Other);
        }
        let (questions, answers) = (reader.u16()?, reader.u16()?);
        reader.skip(4)?;
        let code = Code(low & 0x0f);
        // A server that could not read the question need not repeat it.
        for _ in 0..questions {
            let (name, record, class) = (reader.name()?, reader.u16()?, reader.u16()?);
            if name != self.name || record != self.record as u16 || class != INTERNET {
                return Err(NoAnswer::Other);
            }
        }
        if questions == 0 && code == Code::NO_ERROR {
            return Err(NoAnswer::Other);
        }
        let mut answer = Answer { code, is_truncated: high & TRUNCATED != 0, count: 0, data: Vec::new() };
        for _ in 0..answers {
            // What was left out may have left half a record.
            match reader.record(self.record) {
                Ok(None) => {}
                Ok(Some(data)) => {
                    answer.count += 1;
                    answer.data.extend(data);
                }
                Err(_) if answer.is_truncated => break,
                Err(error) => return Err(error),
            }
        }
        Ok(answer)
    }
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], NoAnswer> {
        let bytes = self.message.get(self.at..self.at + length).ok_or(NoAnswer::Malformed)?;
        self.at += length;
        Ok(bytes)
    }

    fn skip(&mut self, length: usize) -> Result<(), NoAnswer> {
        self.take(length).map(drop)
    }

    fn u8(&mut self) -> Result<u8, NoAnswer> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, NoAnswer> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A name, its end possibly elsewhere in the message (RFC 1035 section 4.1.4). What no [`DomainName`] can be is
    /// written so that it equals none.
    fn name(&mut self) -> Result<DomainName, NoAnswer> {
        let mut name = String::new();
        let mut behind = None;
        for _ in 0..MAX_STEPS {
            match self.u8()? {
                0 => {
                    self.at = behind.unwrap_or(self.at);
                    return Ok(DomainName(name));
                }
                length @ 1..=63 => {
                    if !name.is_empty() {
                        name.push('.');
                    }
                    for &byte in self.take(length.into())? {
                        let is_plain = byte.is_ascii_graphic() && byte != b'.' && byte != b'\\';
                        if is_plain {
                            name.push(byte.into());
                        } else {
                            name.push_str(&format!("\\{byte:03}"));
                        }
                    }
                }
                high @ 0xc0.. => {
                    let low = self.u8()?;
                    behind.get_or_insert(self.at);
                    self.at = usize::from(u16::from_be_bytes([high & 0x3f, low]));
                }
                64..0xc0 => return Err(NoAnswer::Malformed),
            }
        }
        Err(NoAnswer::Malformed)
    }

    /// The data of a record: none if it is of another type than wanted; and if it is, none that can be compared.
    fn record(&mut self, wanted: Record) -> Result<Option<Option<Data>>, NoAnswer> {
        self.name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        self.skip(4)?;
        let length = usize::from(self.u16()?);
        let data = self.take(length)?;
        let start = self.at - length;
        if kind != wanted as u16 || class != INTERNET {
            return Ok(None);
        }
        let address = |octets: &[u8]| match (wanted, octets) {
            (Record::A, octets) => <[u8; 4]>::try_from(octets).ok().map(|o| IpAddr::V4(o.into())),
            (_, octets) => <[u8; 16]>::try_from(octets).ok().map(|o| IpAddr::V6(o.into())),
        };
        Ok(Some(match wanted {
            Record::A | Record::Aaaa => Some(Data::Address(address(data).ok_or(NoAnswer::Malformed)?)),
            Record::Cname | Record::Ns | Record::Ptr => {
                Some(Data::Name(Reader { message: self.message, at: start }.name()?))
            }
            Record::Txt => Some(Data::Text(strings(data)?)),
            Record::Mx | Record::Soa | Record::Srv => None,
        }))
    }
}

/// The strings of a TXT record, joined.
fn strings(data: &[u8]) -> Result<String, NoAnswer> {
    let mut reader = Reader { message: data, at: 0 };
    let mut joined = Vec::new();
    while reader.at < data.len() {
        let length = usize::from(reader.u8()?);
        joined.extend(reader.take(length)?);
    }
    Ok(String::from_utf8_lossy(&joined).into_owned())
}

#[cfg(test)]
mod tests;
