import ISCSI
import SCSI
import Testing

@Suite struct PDUDecoderTests {
    /// PDUs with data of many lengths, and their bytes.
    static func stream(seed: UInt64, headerDigest: Bool, dataDigest: Bool) -> (pdus: [PDU], bytes: [UInt8]) {
        var random = WireRandom(seed: seed)
        var pdus: [PDU] = []
        for length in [0, 1, 2, 3, 4, 5, 48, 511, 512, 4096, 0, 8191] {
            let header = BasicHeaderSegment.dataIn(
                tag: UInt32(truncatingIfNeeded: random.next()), flags: .final, dataSN: UInt32(length), bufferOffset: 0,
                byteCount: length, numbers: ResponseNumbers(statSN: 0, expCmdSN: 2, maxCmdSN: 3))
            pdus.append(PDU(header: header, data: random.bytes(length)))
        }
        let bytes = pdus.flatMap {
            $0.encoded(headerDigest: headerDigest ? CRC32C.table : nil, dataDigest: dataDigest ? CRC32C.table : nil)
        }
        return (pdus, bytes)
    }

    @Test(arguments: [(false, false), (true, false), (false, true), (true, true)])
    func `Any chunking gives the same PDUs`(headerDigest: Bool, dataDigest: Bool) {
        let (pdus, bytes) = Self.stream(seed: 1, headerDigest: headerDigest, dataDigest: dataDigest)
        var random = WireRandom(seed: 2)
        for handling in [DecoderRun.Handling.collect, .place, .direct, .discard] {
            for biggest in [1, 2, 3, 7, 48, 52, 100, 5000, bytes.count] {
                let run = DecoderRun(
                    bytes, headerDigest: headerDigest, dataDigest: dataDigest, handling: handling
                ) { biggest == 1 || biggest == bytes.count ? biggest : Int.random(in: 1...biggest, using: &random) }
                #expect(run.failure == nil)
                #expect(run.endedBetweenPDUs)
                #expect(run.pdus.map(\.header.wireBytes) == pdus.map(\.header.wireBytes))
                #expect(run.pdus.map(\.data) == pdus.map { handling == .discard ? [] : $0.data })
                #expect(run.pdus.allSatisfy { !$0.isDigestWrong })
            }
        }
    }

    @Test func `An additional header is kept and covered by the header digest`() {
        var header = BasicHeaderSegment.scsiCommand(
            .init(operationCode: 0x28), lun: LogicalUnitNumber(rawValue: 0), tag: 1, flags: .final, cmdSN: 1, expStatSN: 1)
        header.totalAHSByteCount = 8
        header.dataSegmentByteCount = 4
        let additional: [UInt8] = [0, 5, 2, 0, 0, 0, 2, 0]
        let covered = header.wireBytes + additional
        let digest = covered.withUnsafeBytes { CRC32C.digest($0, using: CRC32C.table) }
        let bytes = covered + withUnsafeBytes(of: digest.littleEndian) { Array($0) } + [1, 2, 3, 4]
        for chunk in [1, 5, 1000] {
            let run = DecoderRun(bytes + bytes, headerDigest: true) { chunk }
            #expect(run.pdus.map(\.additionalHeader) == [additional, additional])
            #expect(run.pdus.map(\.data) == [[1, 2, 3, 4], [1, 2, 3, 4]])
        }
    }

    @Test func `An additional header over the limit fails before it is read`() {
        var header = BasicHeaderSegment()
        header.totalAHSByteCount = 1020
        var decoder = PDUDecoder(crc32c: CRC32C.table, maxAdditionalHeaderByteCount: 16)
        header.wireBytes.withUnsafeBytes {
            var input = $0
            #expect(decoder.next(&input) == .failed(.additionalHeaderTooLong(byteCount: 1020, limit: 16)))
        }
    }

    @Test func `A data segment over the limit fails at its header, and for good`() {
        var header = BasicHeaderSegment()
        header.dataSegmentByteCount = 8193
        var decoder = PDUDecoder(crc32c: CRC32C.table)
        let expected = DecoderStep.failed(.dataSegmentTooLong(byteCount: 8193, limit: 8192))
        header.wireBytes.withUnsafeBytes {
            var input = $0
            #expect(decoder.next(&input) == expected)
            #expect(decoder.next(&input) == expected)
        }
    }

    @Test func `A data segment over the limit fails before the additional header that it announces came`() {
        var header = BasicHeaderSegment()
        header.dataSegmentByteCount = 8193
        header.totalAHSByteCount = 1020
        var decoder = PDUDecoder(crc32c: CRC32C.table)
        header.wireBytes.withUnsafeBytes {
            var input = $0
            #expect(decoder.next(&input) == .failed(.dataSegmentTooLong(byteCount: 8193, limit: 8192)))
        }
    }

    @Test func `Collecting more than was allowed fails`() {
        var header = BasicHeaderSegment()
        header.dataSegmentByteCount = 100
        var decoder = PDUDecoder(crc32c: CRC32C.table)
        header.wireBytes.withUnsafeBytes {
            var input = $0
            #expect(decoder.next(&input) == .header)
            decoder.collect(limit: 99)
            #expect(decoder.next(&input) == .failed(.collectedDataTooLong(byteCount: 100, limit: 99)))
        }
    }

    @Test func `A wrong header digest ends the stream wherever the wrong bit is`() {
        let (_, bytes) = Self.stream(seed: 3, headerDigest: true, dataDigest: false)
        for offset in 0..<52 {
            var broken = bytes
            broken[offset] ^= 0x10
            // TotalAHSLength is read before the digest can be: with it wrong, more is waited for first.
            let run = DecoderRun(broken, headerDigest: true) { 1 }
            #expect(run.pdus.isEmpty)
            guard case .headerDigestMismatch? = run.failure else {
                Issue.record("offset \(offset): \(String(describing: run.failure))")
                continue
            }
        }
    }

    @Test func `A wrong data digest spoils its own PDU only`() {
        let (pdus, bytes) = Self.stream(seed: 4, headerDigest: false, dataDigest: true)
        // The third PDU: after the empty one (48) and one of 48 + 4 + 4.
        var broken = bytes
        broken[48 + 56 + 48] ^= 1
        for chunk in [1, 64, bytes.count] {
            for handling in [DecoderRun.Handling.collect, .direct, .discard] {
                let run = DecoderRun(broken, dataDigest: true, handling: handling) { chunk }
                #expect(run.pdus.count == pdus.count)
                #expect(run.pdus.map(\.isDigestWrong) == pdus.indices.map { $0 == 2 })
            }
        }
    }

    @Test func `Padding may be anything, and the digest covers it as it came`() {
        var header = BasicHeaderSegment()
        header.dataSegmentByteCount = 1
        let padded: [UInt8] = [0x11, 0xDE, 0xAD, 0xBE]
        let digest = padded.withUnsafeBytes { CRC32C.digest($0, using: CRC32C.table) }
        let bytes = header.wireBytes + padded + withUnsafeBytes(of: digest.littleEndian) { Array($0) }
        let run = DecoderRun(bytes, dataDigest: true) { 3 }
        #expect(run.pdus.map(\.data) == [[0x11]])
        #expect(run.pdus.first?.isDigestWrong == false)
    }

    @Test func `Discarding in the middle takes the caller's memory back`() {
        var header = BasicHeaderSegment()
        header.dataSegmentByteCount = 8
        let bytes = header.wireBytes + [1, 2, 3, 4, 5, 6, 7, 8]
        var buffer: [UInt8] = Array(repeating: 0, count: 8)
        buffer.withUnsafeMutableBytes { memory in
            bytes.withUnsafeBytes { all in
                var decoder = PDUDecoder(crc32c: CRC32C.table)
                var input = UnsafeRawBufferPointer(rebasing: all.prefix(51))
                #expect(decoder.next(&input) == .header)
                decoder.place(into: memory)
                #expect(decoder.directWindow.count == 8)
                #expect(decoder.next(&input) == .needMore)
                #expect(decoder.directWindow.count == 5)
                decoder.discard()
                #expect(decoder.directWindow.count == 0)
                input = UnsafeRawBufferPointer(rebasing: all.dropFirst(51))
                #expect(decoder.next(&input) == .complete)
            }
        }
        #expect(buffer == [1, 2, 3, 0, 0, 0, 0, 0])
    }

    @Test func `The end of placed data is said without further input`() {
        var header = BasicHeaderSegment()
        header.dataSegmentByteCount = 4
        var buffer: [UInt8] = [0, 0, 0, 0]
        buffer.withUnsafeMutableBytes { memory in
            header.wireBytes.withUnsafeBytes { all in
                var decoder = PDUDecoder(crc32c: CRC32C.table)
                var input = all
                #expect(decoder.next(&input) == .header)
                decoder.place(into: memory)
                #expect(decoder.next(&input) == .needMore)
                decoder.placed(byteCount: 4)
                #expect(decoder.next(&input) == .complete)
                #expect(decoder.next(&input) == .needMore)
            }
        }
    }

    @Test func `A stream that was cut off is not between PDUs`() {
        let (_, bytes) = Self.stream(seed: 5, headerDigest: false, dataDigest: false)
        #expect(DecoderRun(Array(bytes.prefix(20))) { 20 }.endedBetweenPDUs == false)
        #expect(DecoderRun(Array(bytes.prefix(48))) { 48 }.endedBetweenPDUs)
        #expect(DecoderRun(Array(bytes.prefix(48 + 49))) { 97 }.endedBetweenPDUs == false)
    }

    @Test func `Random bytes never trap and never yield more than came in`() {
        for seed in UInt64(0)..<300 {
            var random = WireRandom(seed: seed)
            var bytes = random.bytes(4096)
            // Half the time headers that a decoder would go on with.
            if seed % 2 == 0 {
                for start in stride(from: 0, to: 4000, by: 96) {
                    bytes[start + 4] = 0
                    bytes[start + 5] = 0
                    bytes[start + 6] = 0
                }
            }
            let handling: DecoderRun.Handling = [.collect, .place, .direct, .discard][Int(seed % 4)]
            let run = DecoderRun(
                bytes, headerDigest: seed % 3 == 0, dataDigest: seed % 5 == 0, limit: 8192, handling: handling
            ) { Int.random(in: 1...700, using: &random) }
            #expect(run.pdus.reduce(0) { $0 + 48 + $1.data.count } <= 4096)
        }
    }
}
