//! Messages in hexadecimal, and what they say.

use proptest::prelude::*;

use super::*;

fn query(name: &str, record: Record) -> Query {
    Query { name: name.parse().unwrap(), record }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

const WWW: &str = "03 777777 07 6578616d706c65 00";

/// An answer to id 0x1234 with these flags, counts and the rest.
fn message(flags: &str, counts: &str, rest: &[&str]) -> Vec<u8> {
    bytes(&format!("1234 {flags} {counts} 0000 0000 {}", rest.join(" ")))
}

#[test]
fn names() {
    for (text, shown) in
        [("example.net", "example.net"), ("Example.NET.", "Example.NET"), (".", "."), ("_a.b", "_a.b")]
    {
        assert_eq!(text.parse::<DomainName>().unwrap().to_string(), shown);
    }
    let long = ["a".repeat(64), "a.".repeat(127) + "b"];
    for text in ["", "..", "a..b", ".a", "a b", "a\\b", "ü", &long[0], &long[1]] {
        assert_eq!(text.parse::<DomainName>(), Err(BadDomainName), "{text}");
    }
    assert_eq!("A.b".parse::<DomainName>(), "a.B.".parse());
}

#[test]
fn a_question_is_written_as_servers_read_it() {
    let expected = bytes(&format!("1234 0100 0001 0000 0000 0000 {WWW} 0001 0001"));
    assert_eq!(query("www.example", Record::A).message(0x1234), expected);
    let root = bytes("0001 0100 0001 0000 0000 0000 00 0002 0001");
    assert_eq!(query(".", Record::Ns).message(1), root);
}

#[test]
fn an_answer_is_read() {
    let question = format!("{WWW} 0001 0001");
    let alias = "c00c 0005 0001 00000010 0004 0177 c010";
    let address = "0177 c010 0001 0001 00000010 0004 c0000201";
    let cases = [
        (message("8180", "0001 0002", &[&question, alias, address]), (0, false, 1, vec!["192.0.2.1"])),
        (message("8183", "0001 0000", &[&question]), (3, false, 0, vec![])),
        (message("8182", "0000 0000", &[]), (2, false, 0, vec![])),
        (message("8380", "0001 0002", &[&question, address, "0177"]), (0, true, 1, vec!["192.0.2.1"])),
    ];
    for (message, (code, is_truncated, count, data)) in cases {
        let answer = query("WWW.example", Record::A).read(0x1234, &message).unwrap();
        let got: Vec<String> = answer.data.iter().map(ToString::to_string).collect();
        assert_eq!((answer.code, answer.is_truncated, answer.count), (Code(code), is_truncated, count));
        assert_eq!(got, data);
    }
}

#[test]
fn data_of_every_type_is_read() {
    let cases = [
        (Record::Aaaa, "0010 20010db8000000000000000000000001", "2001:db8::1"),
        (Record::Cname, "0004 0177 c010", "w.example"),
        (Record::Ns, "0002 c00c", "www.example"),
        (Record::Ptr, "0003 016100", "a"),
        (Record::Txt, "0007 02 6869 03 212121", "\"hi!!!\""),
    ];
    for (record, data, shown) in cases {
        let number = format!("{:04x}", record as u16);
        let question = format!("{WWW} {number} 0001");
        let answer = format!("c00c {number} 0001 00000010 {data}");
        let message = message("8180", "0001 0001", &[&question, &answer]);
        let answer = query("www.example", record).read(0x1234, &message).unwrap();
        assert_eq!(answer.data.len(), 1, "{record:?}");
        assert_eq!(answer.data[0].to_string(), shown);
        assert_eq!(
            record.data(shown.trim_matches('"')),
            Some(answer.data[0].clone()),
            "what is written is compared"
        );
    }
    for record in [Record::Mx, Record::Soa, Record::Srv] {
        assert_eq!(record.data("10 mail.example"), None);
    }
    assert_eq!(Record::A.data("2001:db8::1"), None);
}

#[test]
fn what_is_no_answer_is_told_apart() {
    let ours = query("www.example", Record::A);
    let question = format!("{WWW} 0001 0001");
    let whole = message("8180", "0001 0001", &[&question, "c00c 0001 0001 00000010 0004 c0000201"]);
    let cases = [
        (message("8180", "0001 0000", &["0177 00 0001 0001"]), NoAnswer::Other),
        (message("8180", "0001 0000", &[&format!("{WWW} 001c 0001")]), NoAnswer::Other),
        (message("0100", "0001 0000", &[&question]), NoAnswer::Other),
        (message("8180", "0000 0000", &[]), NoAnswer::Other),
        (message("8180", "0001 0000", &["c00c 0001 0001"]), NoAnswer::Malformed),
        (
            message("8180", "0001 0001", &[&question, "c00c 0001 0001 00000010 0003 c00002"]),
            NoAnswer::Malformed,
        ),
        (whole[..whole.len() - 1].to_vec(), NoAnswer::Malformed),
        (bytes("12"), NoAnswer::Malformed),
    ];
    for (message, expected) in cases {
        assert_eq!(ours.read(0x1234, &message), Err(expected), "{message:02x?}");
    }
    assert_eq!(ours.read(0x1235, &whole), Err(NoAnswer::Other));
}

proptest! {
    #[test]
    fn any_bytes_have_an_end(mut message in proptest::collection::vec(any::<u8>(), 0..80)) {
        let ours = query("www.example", Record::Txt);
        drop(ours.read(7, &message));
        // With a header that is taken for ours, more of the reader is met.
        if message.len() >= 8 {
            message[..8].copy_from_slice(&[0, 7, 0x81, 0x80, 0, 0, 0, 3]);
            message[3] = 3;
            drop(ours.read(7, &message));
        }
    }
}
