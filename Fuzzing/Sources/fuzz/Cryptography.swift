import ISCSI

/// Repeatable, and quick: not a cryptographic hash.
struct FuzzCryptography: CryptographicServices {
    var seed: UInt8 = 1

    func randomBytes(count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7) &+ seed } }

    func digest(_ algorithm: CHAPAlgorithm, of bytes: [UInt8]) -> [UInt8]? {
        var state = 0xCBF2_9CE4_8422_2325 ^ UInt64(algorithm.rawValue)
        for byte in bytes { state = (state ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return (0..<algorithm.digestByteCount).map { UInt8(truncatingIfNeeded: state >> UInt64($0 % 8 * 8)) &+ UInt8($0) }
    }
}

let fuzzInitiatorName = "iqn.2026-11.org.example:host"
let fuzzTargetName = "iqn.2026-11.org.example:disk"
let fuzzSecret = CHAPIdentity(name: "host", secret: CHAPSecret(Array("0123456789abcdef".utf8)))
let fuzzMutualSecret = CHAPIdentity(name: "disk", secret: CHAPSecret(Array("fedcba9876543210".utf8)))

extension BasicHeaderSegment {
    var wireBytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 48)
        bytes.withUnsafeMutableBytes { store(to: $0.baseAddress!) }
        return bytes
    }

    mutating func set(word: UInt32, at offset: Int) {
        for index in 0..<4 { self[byte: offset + index] = UInt8(truncatingIfNeeded: word >> UInt32(24 - 8 * index)) }
    }

    /// Changes one field, or the whole header, as the script has it. The data segment's length stays true.
    mutating func damage(_ script: inout ByteScript) {
        let dataByteCount = dataSegmentByteCount
        switch script.below(6) {
        case 0: set(word: script.pick([0, 1, 2, 512, 8192, 0x7FFF_FFFF, 0xFFFF_FFFE, 0xFFFF_FFFF]), at: 16 + 4 * script.below(8))
        case 1: set(word: script.word32(), at: 16 + 4 * script.below(8))
        case 2: flags = script.byte()
        case 3: self[byte: 0] = script.byte()
        case 4: self[byte: script.below(48)] ^= 1 << UInt8(script.below(8))
        default:
            let offset = 16 + 4 * script.below(8)
            var word: UInt32 = 0
            for index in 0..<4 { word = word << 8 | UInt32(self[byte: offset + index]) }
            set(word: word &+ UInt32(truncatingIfNeeded: Int(Int8(bitPattern: script.byte()))), at: offset)
        }
        dataSegmentByteCount = dataByteCount
        totalAHSByteCount = 0
    }
}
