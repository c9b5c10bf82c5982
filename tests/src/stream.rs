//! A TCP transfer of which every byte is checked.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::namespace::Namespace;
use crate::sniffer::CANARY;

/// What is written and compared at once.
const BLOCK: usize = 64 << 10;
/// Longest silence of a transfer.
const SILENCE: Duration = Duration::from_secs(15);

/// Sends `blocks` of 64 KiB from one namespace to an address of another, and compares each with what was sent.
#[track_caller]
pub fn transfer(from: &Namespace, to: &Namespace, address: IpAddr, blocks: u64) {
    transfer_at(from, to, SocketAddr::new(address, 0), blocks);
}

/// The same to a port of one's choice.
#[track_caller]
pub fn transfer_at(from: &Namespace, to: &Namespace, address: SocketAddr, blocks: u64) {
    let listener = to.enter(|| TcpListener::bind(address).expect("the address is there, and the port is free"));
    let target = listener.local_addr().expect("it is bound");
    let received = std::thread::spawn(move || receive(&listener));
    let sent = from.enter(|| send(target, blocks));
    sent.unwrap_or_else(|error| panic!("sending to {target} failed: {error}"));
    let received = received.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(received.expect("receiving failed"), blocks, "blocks are missing at the end");
}

fn send(target: SocketAddr, blocks: u64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, SILENCE)?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut block = first_block();
    for number in 0..blocks {
        block[..8].copy_from_slice(&number.to_be_bytes());
        stream.write_all(&block)?;
    }
    Ok(())
}

fn receive(listener: &TcpListener) -> std::io::Result<u64> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(SILENCE))?;
    let (mut expected, mut block) = (first_block(), vec![0; BLOCK]);
    let mut number = 0u64;
    loop {
        let len = read_full(&mut stream, &mut block)?;
        if len == 0 {
            return Ok(number);
        }
        expected[..8].copy_from_slice(&number.to_be_bytes());
        assert!(len == BLOCK && block == expected, "block {number} ({len} bytes) is not what was sent");
        number += 1;
    }
}

fn read_full(stream: &mut TcpStream, block: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0;
    while len < block.len() {
        match stream.read(&mut block[len..])? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}

/// Canaries all over, between bytes that differ from place to place.
fn first_block() -> Vec<u8> {
    let chunk = |number: usize| {
        let varied = (0..48).map(move |at| u8::try_from((number * 31 + at * 7) % 251).expect("below 251"));
        varied.chain(CANARY)
    };
    (0..BLOCK / 64).flat_map(chunk).collect()
}
