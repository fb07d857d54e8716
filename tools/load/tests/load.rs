//! `postern-load run` measures and checks a group, and ends with an error when a server assigns a
//! wrong number.

use postern_testkit::group::build_binary;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;

fn load(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-load"));
    command.arg("run").args(args).output().expect("it runs")
}

fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().unwrap_or_else(|| panic!("{key} in {report}"))
}

#[test]
fn a_group_is_measured_and_checked() {
    let postern = build_binary();
    let ended = load(
        &[
            ["--postern", postern.to_str().unwrap()].as_slice(),
            &["--json", "--warm-up", "0.2", "--seconds", "1", "--connections", "4"],
            &["--outstanding", "4", "--bytes", "10..200", "--receivers", "2", "--once"],
        ]
        .concat(),
    );
    let words = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{words}");
    let report: Value = serde_json::from_slice(&ended.stdout).expect("one JSON object");
    assert!(report["finding"].is_null(), "{report}");
    assert_eq!(number(&report, "mailboxes_read"), 4.0);
    assert!(number(&report, "acked") > 0.0, "{report}");
    assert!(number(&report, "delivered") > 0.0, "{report}");
    assert_eq!(report["servers"].as_array().map(Vec::len), Some(3), "{report}");
    let intervals = report["intervals"].as_array().expect("intervals");
    let acked: f64 = intervals.iter().map(|interval| number(interval, "acked")).sum();
    // The warm-up and the end of the run have intervals, too.
    assert!(acked >= number(&report, "acked"), "{report}");
}

#[test]
fn a_wrong_number_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || assign_wrong_numbers(stream, address));
        }
    });
    let args = ["--servers", &address.to_string(), "-c", "1", "-s", "20", "-w", "0"];
    let ended = load(&args);
    assert_eq!(ended.status.code(), Some(1));
    let words = String::from_utf8_lossy(&ended.stderr);
    assert!(words.contains("has the number 12, after 10"), "{words}");
    let report = String::from_utf8_lossy(&ended.stdout);
    assert!(report.contains("has the number 12, after 10"), "{report}");
}

/// Accepts everything; the number after 10 is 12.
fn assign_wrong_numbers(stream: TcpStream, address: SocketAddr) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut stored = 0;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let command = line.split(' ').next().unwrap_or_default();
        let answer = match command {
            "STATUS" => {
                format!("STAT role primary\nSTAT waiting -\nSTAT primary 1 {address}\nOK\n")
            }
            "SEND" => {
                stored += 1;
                format!("OK {}\n", if stored > 10 { stored + 1 } else { stored })
            }
            _ => "OK ann 0\n".to_owned(),
        };
        out.write_all(answer.as_bytes())?;
    }
    Ok(())
}
