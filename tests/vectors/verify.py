#!/usr/bin/env python3
"""A second implementation of what docs/protocol.md derives, for the vectors beside it.

Standard library only. X25519, HKDF, ChaCha20-Poly1305 and AES-GCM are written out here; ML-KEM's shared secret is taken
as given (a test in Rust checks it). Prints what is wrong; exits 1 then. `--fill` writes what it derives into the files.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import struct
import sys

from aead import SUITES, seal

HERE = pathlib.Path(__file__).resolve().parent
P = 2**255 - 19
BASE = (9).to_bytes(32, "little")
MAC = 32


def x25519(private, public):
    """RFC 7748, section 5."""
    k = int.from_bytes(private, "little") & ~7 & ~(128 << 8 * 31) | 64 << 8 * 31
    u = int.from_bytes(public, "little") & (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in range(254, -1, -1):
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a, c * b, a * a, b * b
        x2, z2, x3, z3 = aa * bb, (aa - bb) * (aa + 121665 * (aa - bb)), (da + cb) ** 2, u * (da - cb) ** 2
        x2, z2, x3, z3 = x2 % P, z2 % P, x3 % P, z3 % P
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def expand(prk, *info):
    """One block of HKDF-Expand, RFC 5869, section 2.3."""
    return mac(prk, b"".join(info) + b"\x01")


def counted(part):
    return struct.pack("<I", len(part)) + part


def derive(vector):
    """Everything that both ends derive, as the vector names it."""
    frames = {name: bytes.fromhex(frame) for name, frame in vector["frames"].items()}
    initiator, responder = vector["initiator"], vector["responder"]
    static = [base64.b64decode(side["static_private"]) for side in (initiator, responder)]
    public = [x25519(private, BASE) for private in static]
    ephemeral = [bytes.fromhex(side["ephemeral_private"]) for side in (initiator, responder)]
    s1 = x25519(ephemeral[0], x25519(ephemeral[1], BASE))
    s2 = bytes.fromhex(vector["ml_kem_shared_secret"])
    s3 = x25519(static[0], public[1])
    psk = base64.b64decode(vector["preshared_key"] or "") or bytes(32)
    prk = mac(sha256(*public), s1 + s2 + s3 + psk)
    th1 = sha256(counted(b"warren associations 1"), counted(frames["offer"]), counted(frames["answer"][:-MAC]))
    th2 = sha256(th1, counted(frames["confirm"][:-MAC]))
    derived = {"s1": s1, "s3": s3, "prk": prk, "th1": th1, "th2": th2}
    over = {"answer": th1, "confirm": th2, "ack": th2, "close": struct.pack("<Q", vector["number"])}
    for name, message in over.items():
        derived[name + "_mac"] = mac(expand(prk, name.encode(), th1), message)
    return public, derived


def key_of(derived, direction, lane, suite):
    info = struct.pack("<BHH", direction, lane, SUITES[suite])
    return expand(derived["prk"], b"association", info, derived["th1"])


def build_offer(vector, side, public, kem_key):
    suites = [SUITES[suite] for suite in side["suites"]]
    body = struct.pack("<QQ", vector["number"], side["boot"]) + bytes.fromhex(side["nonce"])
    body += struct.pack("<HH%dH" % len(suites), side["workers"], len(suites), *suites) + public + kem_key
    return struct.pack("<BBH", 1, 1, len(body)) + body


def build_answer(vector, side, public, ciphertext, answer_mac):
    body = struct.pack("<QQ", vector["number"], side["boot"]) + bytes.fromhex(side["nonce"])
    body += struct.pack("<HH", side["workers"], SUITES[vector["suite"]]) + public + ciphertext
    body += struct.pack("<H%dI" % len(side["indices"]), len(side["indices"]), *side["indices"]) + answer_mac
    return struct.pack("<BBH", 1, 2, len(body)) + body


def build_short(kind, vector, between, tag):
    body = struct.pack("<Q", vector["number"]) + between + tag
    return struct.pack("<BBH", 1, kind, len(body)) + body


def frames_of(vector, derived):
    """The frames, written anew; ML-KEM's key and ciphertext are taken from those that are there."""
    initiator, responder = vector["initiator"], vector["responder"]
    kem_key = bytes.fromhex(vector["frames"]["offer"])[-1184:]
    at = 4 + 8 + 8 + 32 + 2 + 2 + 32
    ciphertext = bytes.fromhex(vector["frames"]["answer"])[at:at + 1088]
    shares = [x25519(bytes.fromhex(side["ephemeral_private"]), BASE) for side in (initiator, responder)]
    indices = struct.pack("<H%dI" % len(initiator["indices"]), len(initiator["indices"]), *initiator["indices"])
    return {
        "offer": build_offer(vector, initiator, shares[0], kem_key),
        "answer": build_answer(vector, responder, shares[1], ciphertext, derived["answer_mac"]),
        "confirm": build_short(3, vector, indices, derived["confirm_mac"]),
        "ack": build_short(4, vector, b"", derived["ack_mac"]),
        "close": build_short(5, vector, b"", derived["close_mac"]),
        "hello": struct.pack("<BBHQ", 1, 7, 8, initiator["boot"]),
    }


def lanes_of(vector):
    """Direction, lane and receiver index of every association: the receiver names the index."""
    for direction, receiver in enumerate(("responder", "initiator")):
        for lane, index in enumerate(vector[receiver]["indices"]):
            yield direction, lane, index


def exchange(vector, check):
    public, derived = derive(vector)
    check("the smaller key begins", public[0] < public[1], True)
    for name, value in derived.items():
        check(name, vector.get(name), value.hex())
    for name, frame in frames_of(vector, derived).items():
        check(name, vector["frames"][name], frame.hex())
    made = []
    for direction, lane, index in lanes_of(vector):
        key = key_of(derived, direction, lane, vector["suite"])
        packet = seal(vector["suite"], key, index, 0, b"sixteen bytes ok")
        made.append({"direction": direction, "lane": lane, "index": index, "key": key.hex(), "first_packet": packet.hex()})
    check("associations", vector.get("associations"), made)
    return {**{name: value.hex() for name, value in derived.items()}, "associations": made}


def association(vector, check):
    for packet in vector["packets"]:
        sealed = seal(vector["suite"], bytes.fromhex(vector["key"]), vector["index"], packet["counter"],
                      bytes.fromhex(packet["plaintext"]))
        check("packet %d" % packet["counter"], packet["datagram"], sealed.hex())


def checksum(data):
    words = struct.unpack(">%dH" % ((len(data) + 1) // 2), data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total > 0xffff:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def control_frame(vector, check):
    frame, packets = bytes.fromhex(vector["frame"]), []
    parts = [frame[at:at + 1200] for at in range(0, len(frame), 1200)]
    source, target = (bytes.fromhex("fe80" + "0000" * 3 + "57415252454e" + last) for last in ("0001", "0002"))
    for number, part in enumerate(parts):
        data = struct.pack("<HBB", vector["number"], number, len(parts)) + part
        udp = struct.pack(">HHH", 51840, 51840, 8 + len(data))
        pseudo = source + target + struct.pack(">II", 8 + len(data), 17)
        udp += struct.pack(">H", checksum(pseudo + udp + b"\0\0" + data))
        packets.append(struct.pack(">IHBB", 0x60000000, 8 + len(data), 17, 1) + source + target + udp + data)
    packets = [packet.hex() for packet in packets]
    check("packets", vector["packets"], packets)
    return {"packets": packets}


def main():
    wrong = checked = 0
    for name, judge in (("exchange", exchange), ("associations", association), ("frames", control_frame)):
        path = HERE / (name + ".json")
        content = json.loads(path.read_text())
        for vector in content["vectors"]:
            def check(what, found, expected, name=name, vector=vector):
                nonlocal wrong, checked
                checked += 1
                if found != expected:
                    wrong += 1
                    print("%s, %s: %s is %s, not %s" % (name, vector["name"], what, found, expected))
            vector.update(judge(vector, check) or {})
        if "--fill" in sys.argv:
            path.write_text(json.dumps(content, indent=1) + "\n")
    print("%d checked, %d wrong" % (checked, wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
