import ISCSI

/// Finds the PDUs in a stream of bytes.
struct PDUFramer {
    var hasHeaderDigest = false
    var hasDataDigest = false
    private var header: [UInt8] = []
    private var body: [UInt8] = []
    private var bodyByteCount = 0
    private var dataByteCount = 0
    private var skip = 0

    /// Calls `began` with the offset in `bytes` at which a PDU's header begins (negative where it began
    /// earlier), when the header is complete.
    mutating func feed(_ bytes: UnsafeRawBufferPointer, began: (Int, BasicHeaderSegment) -> Void) {
        feed(bytes, began: began, ended: { _, _ in nil })
    }

    /// As well calls `ended` with each PDU's header and data segment when all of it has been seen; it may
    /// change the digests, which count from the next PDU on.
    mutating func feed(
        _ bytes: UnsafeRawBufferPointer, began: (Int, BasicHeaderSegment) -> Void,
        ended: (BasicHeaderSegment, [UInt8]) -> (header: Bool, data: Bool)?
    ) {
        var position = 0
        while position < bytes.count {
            if header.count < 48 {
                let count = min(48 - header.count, bytes.count - position)
                header.append(contentsOf: bytes[position..<position + count])
                position += count
                guard header.count == 48 else { return }
                let segment = parsed
                began(position - 48, segment)
                dataByteCount = segment.dataSegmentByteCount
                let padded = (dataByteCount + 3) & ~3
                skip = segment.totalAHSByteCount + (hasHeaderDigest ? 4 : 0)
                bodyByteCount = padded + (hasDataDigest && dataByteCount > 0 ? 4 : 0)
                body.removeAll(keepingCapacity: true)
            }
            let skipped = min(skip, bytes.count - position)
            skip -= skipped
            position += skipped
            guard skip == 0 else { return }
            let count = min(bodyByteCount - body.count, bytes.count - position)
            body.append(contentsOf: bytes[position..<position + count])
            position += count
            guard body.count == bodyByteCount else { return }
            let segment = parsed
            header.removeAll(keepingCapacity: true)
            if let digests = ended(segment, Array(body.prefix(dataByteCount))) {
                hasHeaderDigest = digests.header
                hasDataDigest = digests.data
            }
        }
    }

    private var parsed: BasicHeaderSegment {
        header.withUnsafeBytes { BasicHeaderSegment(loadingFrom: $0.baseAddress!) }
    }
}
