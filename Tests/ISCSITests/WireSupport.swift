import ISCSI

/// SplitMix64: the same numbers for the same seed, everywhere.
struct WireRandom: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) }
    }
}

/// Not a cryptographic hash: mixes its input well enough that a wrong order, name or secret shows.
struct WireCryptography: CryptographicServices {
    var seed: UInt64 = 1
    /// What `digest` refuses, as a platform under FIPS would.
    var unavailable: Set<CHAPAlgorithm> = []
    /// Every random byte is this where it is set.
    var constantByte: UInt8?

    func randomBytes(count: Int) -> [UInt8] {
        if let constantByte { return Array(repeating: constantByte, count: count) }
        var random = WireRandom(seed: seed)
        return random.bytes(count)
    }

    func digest(_ algorithm: CHAPAlgorithm, of bytes: [UInt8]) -> [UInt8]? {
        if unavailable.contains(algorithm) { return nil }
        var state = 0xCBF2_9CE4_8422_2325 ^ UInt64(algorithm.rawValue)
        for byte in bytes { state = (state ^ UInt64(byte)) &* 0x100_0000_01B3 }
        var random = WireRandom(seed: state)
        return random.bytes(algorithm.digestByteCount)
    }
}

/// A PDU as a decoder gave it.
struct DecodedPDU {
    var header: BasicHeaderSegment
    var additionalHeader: [UInt8] = []
    var data: [UInt8] = []
    var isDigestWrong = false
}

/// Runs a decoder over bytes in chunks and keeps what comes out.
struct DecoderRun {
    enum Handling { case collect, place, direct, discard }

    var pdus: [DecodedPDU] = []
    var failure: ProtocolError?
    var endedBetweenPDUs = true

    /// `nextChunk` gives the size of each next chunk.
    init(
        _ bytes: [UInt8], headerDigest: Bool = false, dataDigest: Bool = false, limit: Int = 1 << 20,
        handling: Handling = .collect, nextChunk: () -> Int
    ) {
        var decoder = PDUDecoder(crc32c: CRC32C.table, maxDataSegmentByteCount: limit)
        decoder.headerDigest = headerDigest
        decoder.dataDigest = dataDigest
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: limit, alignment: 8)
        defer { buffer.deallocate() }
        var position = 0
        while position < bytes.count {
            var chunk = Array(bytes[position..<min(position + max(nextChunk(), 1), bytes.count)])
            position += chunk.count
            // A socket fills the window first, and only what is left over is parsed.
            if handling == .direct {
                let window = decoder.directWindow
                let direct = min(window.count, chunk.count)
                if direct > 0 {
                    chunk.withUnsafeBytes { window.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0.prefix(direct))) }
                    decoder.placed(byteCount: direct)
                    chunk.removeFirst(direct)
                }
            }
            failure = chunk.withUnsafeBytes { raw in
                var input = raw
                return feed(&decoder, &input, handling, buffer)
            }
            if failure != nil { break }
        }
        endedBetweenPDUs = decoder.isBetweenPDUs
    }

    private mutating func feed(
        _ decoder: inout PDUDecoder, _ input: inout UnsafeRawBufferPointer, _ handling: Handling,
        _ buffer: UnsafeMutableRawBufferPointer
    ) -> ProtocolError? {
        while true {
            switch decoder.next(&input) {
            case .needMore:
                return nil
            case .header:
                switch handling {
                case .collect: decoder.collect(limit: buffer.count)
                case .place, .direct: decoder.place(into: buffer)
                case .discard: decoder.discard()
                }
            case .complete:
                pdus.append(finished(decoder, handling, buffer))
            case .dataDigestError:
                var pdu = finished(decoder, handling, buffer)
                pdu.isDigestWrong = true
                pdus.append(pdu)
            case .failed(let error):
                return error
            }
        }
    }

    private func finished(
        _ decoder: borrowing PDUDecoder, _ handling: Handling, _ buffer: UnsafeMutableRawBufferPointer
    ) -> DecodedPDU {
        let header = decoder.header
        var pdu = DecodedPDU(header: header, additionalHeader: Array(decoder.additionalHeader))
        switch handling {
        case .collect: pdu.data = Array(decoder.collectedData)
        case .place, .direct: pdu.data = Array(buffer.prefix(header.dataSegmentByteCount))
        case .discard: break
        }
        return pdu
    }
}

extension BasicHeaderSegment {
    /// The 48 bytes.
    var wireBytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 48)
        bytes.withUnsafeMutableBytes { store(to: $0.baseAddress!) }
        return bytes
    }
}
