import ISCSI
import SCSI

/// The same stream in one piece and in the script's pieces, with the data handled in several ways: what comes out
/// must be the same, whatever the pieces.
@Sendable
func fuzzDecoder(_ input: UnsafeRawBufferPointer) {
    var script = ByteScript(input)
    let settings = script.byte()
    let chunk = Int(script.byte()) + 1
    let stream = script.bytes(1 << 16)
    let whole = decode(stream, settings: settings & 0x03, handling: .collect, chunk: stream.count)
    for handling in [DataHandling.collect, .place, .direct, .discard] {
        let parts = decode(stream, settings: settings & 0x03, handling: handling, chunk: chunk)
        require(parts.headers == whole.headers, "headers do not depend on the pieces")
        require(parts.steps == whole.steps, "steps do not depend on the pieces")
        if handling != .discard { require(parts.data == whole.data, "data does not depend on the pieces") }
    }
}

private enum DataHandling { case collect, place, direct, discard }

private struct DecoderTrace {
    var headers: [[UInt8]] = []
    var data: [[UInt8]] = []
    var steps: [DecoderStep] = []
}

private func decode(_ stream: [UInt8], settings: UInt8, handling: DataHandling, chunk: Int) -> DecoderTrace {
    let limit = 4096
    var decoder = PDUDecoder(crc32c: CRC32C.table, maxDataSegmentByteCount: limit, maxAdditionalHeaderByteCount: 64)
    decoder.headerDigest = settings & 1 != 0
    decoder.dataDigest = settings & 2 != 0
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: limit, alignment: 8)
    defer { buffer.deallocate() }
    var trace = DecoderTrace()
    stream.withUnsafeBytes { bytes in
        var position = 0
        while position < bytes.count {
            var piece = UnsafeRawBufferPointer(rebasing: bytes[position..<min(position + chunk, bytes.count)])
            position += piece.count
            if handling == .direct {
                let window = decoder.directWindow
                let count = min(window.count, piece.count)
                if count > 0 {
                    require(
                        window.baseAddress! >= buffer.baseAddress!
                            && window.baseAddress! + window.count <= buffer.baseAddress! + limit, "the window lies in the buffer")
                    window.copyMemory(from: UnsafeRawBufferPointer(rebasing: piece.prefix(count)))
                    decoder.placed(byteCount: count)
                    piece = UnsafeRawBufferPointer(rebasing: piece.dropFirst(count))
                }
            }
            while true {
                let step = decoder.next(&piece)
                if step == .needMore { break }
                trace.steps.append(step)
                switch step {
                case .needMore: break
                case .header:
                    trace.headers.append(decoder.header.wireBytes + Array(decoder.additionalHeader))
                    switch handling {
                    case .collect: decoder.collect(limit: limit)
                    case .place, .direct: decoder.place(into: buffer)
                    case .discard: if decoder.header.dataSegmentByteCount > 0 { decoder.discard() }
                    }
                case .complete, .dataDigestError:
                    let count = decoder.header.dataSegmentByteCount
                    trace.data.append(handling == .collect ? Array(decoder.collectedData) : Array(buffer.prefix(count)))
                case .failed: return
                }
            }
        }
    }
    return trace
}

@Sendable
func decoderSeeds() -> [[UInt8]] {
    let numbers = ResponseNumbers(statSN: 1, expCmdSN: 1, maxCmdSN: 8)
    let data = Array("X-a=1\0".utf8)
    return (UInt8(0)..<4).map { settings in
        var bytes: [UInt8] = [settings, 6]
        for (header, data) in [
            (BasicHeaderSegment.nopIn(tag: 1, dataByteCount: 0, numbers: numbers), []),
            (.textResponse([.final], tag: 2, dataByteCount: data.count, numbers: numbers), data),
            (.dataIn(tag: 3, status: .good, dataSN: 0, bufferOffset: 0, byteCount: 9, numbers: numbers), [UInt8](repeating: 7, count: 9)),
        ] as [(BasicHeaderSegment, [UInt8])] {
            bytes += PDU(header: header, data: data).encoded(
                headerDigest: settings & 1 != 0 ? CRC32C.table : nil, dataDigest: settings & 2 != 0 ? CRC32C.table : nil)
        }
        return bytes
    }
}
