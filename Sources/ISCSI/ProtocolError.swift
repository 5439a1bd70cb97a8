/// A PDU that no peer may send and that ends its connection; all counts in bytes.
@frozen
public enum ProtocolError: Error, Hashable, Sendable {
    /// The data segment is longer than the MaxRecvDataSegmentLength that we declared.
    case dataSegmentTooLong(byteCount: Int, limit: Int)
    case additionalHeaderTooLong(byteCount: Int, limit: Int)
    /// The data segment of a PDU that is held in memory, like a text, is longer than it can rightly be.
    case collectedDataTooLong(byteCount: Int, limit: Int)
    /// The header can't be trusted, so neither can the place where the next one begins (RFC 7143 section 7.8).
    case headerDigestMismatch(received: UInt32, computed: UInt32)
}

extension ProtocolError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .dataSegmentTooLong(let byteCount, let limit):
            "data segment of \(byteCount) bytes, at most \(limit) were agreed"
        case .additionalHeaderTooLong(let byteCount, let limit):
            "additional header of \(byteCount) bytes, at most \(limit) are accepted"
        case .collectedDataTooLong(let byteCount, let limit):
            "data segment of \(byteCount) bytes where at most \(limit) can be meant"
        case .headerDigestMismatch(let received, let computed):
            "header digest 0x\(String(received, radix: 16)), computed 0x\(String(computed, radix: 16))"
        }
    }
}
