"""The two suites of associations, as their specifications write them; slow, and not for anything but checking."""

import struct

SUITES = {"aes-256-gcm": 1, "chacha20-poly1305": 2}


def seal(suite, key, index, counter, plaintext):
    """An association packet, as docs/protocol.md lays it out."""
    header = struct.pack("<IIQ", 4, index, counter)
    nonce = struct.pack("<IQ", 0, counter)
    return header + {"aes-256-gcm": aes_gcm, "chacha20-poly1305": chacha20_poly1305}[suite](key, nonce, plaintext, header)


def padded(data):
    return data + bytes(-len(data) % 16)


def xor(data, stream):
    return bytes(a ^ b for a, b in zip(data, stream))


# RFC 8439.

def rotate(word, by):
    return (word << by | word >> 32 - by) & 0xffffffff


def quarter(s, a, b, c, d):
    for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = s[x] + s[y] & 0xffffffff
        s[z] = rotate(s[z] ^ s[x], by)


def chacha20_block(key, nonce, number):
    state = list(struct.unpack("<16I", b"expand 32-byte k" + key + struct.pack("<I", number) + nonce))
    s = state[:]
    for _ in range(10):
        for at in range(4):
            quarter(s, at, 4 + at, 8 + at, 12 + at)
        for at in range(4):
            quarter(s, at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4)
    return struct.pack("<16I", *((a + b) & 0xffffffff for a, b in zip(s, state)))


def chacha20_poly1305(key, nonce, plaintext, header):
    blocks = (chacha20_block(key, nonce, 1 + at) for at in range(-(-len(plaintext) // 64)))
    sealed = xor(plaintext, b"".join(blocks))
    one_time = chacha20_block(key, nonce, 0)
    r = int.from_bytes(one_time[:16], "little") & 0x0ffffffc0ffffffc0ffffffc0fffffff
    data = padded(header) + padded(sealed) + struct.pack("<QQ", len(header), len(sealed))
    total = 0
    for at in range(0, len(data), 16):
        total = (total + int.from_bytes(data[at:at + 16] + b"\x01", "little")) * r % (2**130 - 5)
    tag = total + int.from_bytes(one_time[16:32], "little") & (1 << 128) - 1
    return sealed + tag.to_bytes(16, "little")


# FIPS 197 and NIST SP 800-38D.

def double(byte):
    return byte << 1 ^ (0x11b if byte & 0x80 else 0)


def s_box():
    power, logarithm, byte = [0] * 256, [0] * 256, 1
    for at in range(255):
        power[at], logarithm[byte] = byte, at
        byte ^= double(byte)
    box = []
    for byte in range(256):
        x = power[-logarithm[byte] % 255] if byte else 0
        box.append(x ^ 0x63)
        for by in range(1, 5):
            box[byte] ^= (x << by | x >> 8 - by) & 0xff
    return box


S = s_box()


def expand_key(key):
    words, round_constant = [key[at:at + 4] for at in range(0, 32, 4)], 1
    while len(words) < 60:
        word = words[-1]
        if len(words) % 8 == 0:
            word = bytes(S[byte] for byte in word[1:] + word[:1])
            word = bytes([word[0] ^ round_constant]) + word[1:]
            round_constant = double(round_constant)
        elif len(words) % 8 == 4:
            word = bytes(S[byte] for byte in word)
        words.append(xor(word, words[-8]))
    return [b"".join(words[at:at + 4]) for at in range(0, 60, 4)]


def mix(column):
    a, b, c, d = column
    every = a ^ b ^ c ^ d
    return [byte ^ every ^ double(byte ^ after) for byte, after in ((a, b), (b, c), (c, d), (d, a))]


def aes(keys, block):
    state = xor(block, keys[0])
    for number, key in enumerate(keys[1:], 1):
        state = [S[state[(at + at % 4 * 4) % 16]] for at in range(16)]
        if number < 14:
            state = [byte for at in range(0, 16, 4) for byte in mix(state[at:at + 4])]
        state = xor(state, key)
    return state


def times(x, y):
    """In GF(2^128), bits reflected."""
    product = 0
    for bit in range(127, -1, -1):
        if y >> bit & 1:
            product ^= x
        x = x >> 1 ^ (0xe1 << 120 if x & 1 else 0)
    return product


def aes_gcm(key, nonce, plaintext, header):
    keys = expand_key(key)
    blocks = (aes(keys, nonce + struct.pack(">I", 2 + at)) for at in range(-(-len(plaintext) // 16)))
    sealed = xor(plaintext, b"".join(blocks))
    h, total = int.from_bytes(aes(keys, bytes(16)), "big"), 0
    data = padded(header) + padded(sealed) + struct.pack(">QQ", 8 * len(header), 8 * len(sealed))
    for at in range(0, len(data), 16):
        total = times(total ^ int.from_bytes(data[at:at + 16], "big"), h)
    return sealed + xor(aes(keys, nonce + struct.pack(">I", 1)), total.to_bytes(16, "big"))
