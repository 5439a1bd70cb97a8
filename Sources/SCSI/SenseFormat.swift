/// The two layouts of sense data (SPC-4 clauses 4.5.2 and 4.5.3).
public enum SenseFormat: Hashable, Sendable {
    /// 18 bytes or more, each field at its place.
    case fixed
    /// 8 bytes, then a descriptor for each field.
    case descriptor
}

extension SenseData {
    /// Sense data as a target sent it, cut at any byte: what was not received is not there (ASC and ASCQ
    /// are then 0). Nil where the response code is none of 70h…73h or the sense key was not received.
    /// Allocates nothing.
    public init?(parsing bytes: UnsafeRawBufferPointer) {
        guard let first = bytes.byte(at: 0) else { return nil }
        switch first & 0x7F {
        case 0x70, 0x71: self.init(fixed: bytes, isDeferred: first & 1 == 1)
        case 0x72, 0x73: self.init(descriptors: bytes, isDeferred: first & 1 == 1)
        default: return nil
        }
    }

    /// The same for an array.
    public init?(parsing bytes: [UInt8]) {
        guard let sense = bytes.withUnsafeBytes({ SenseData(parsing: $0) }) else { return nil }
        self = sense
    }

    private init?(fixed received: UnsafeRawBufferPointer, isDeferred: Bool) {
        guard let keyByte = received.byte(at: 2), let key = SenseKey(rawValue: keyByte & 0x0F) else { return nil }
        // What lies past ADDITIONAL SENSE LENGTH is not sense data, whatever the transport carried.
        let bytes = UnsafeRawBufferPointer(
            rebasing: received.prefix(received.byte(at: 7).map { Int($0) + 8 } ?? received.count))
        self.init(
            key: key, additional: AdditionalSense(bytes.byte(at: 12) ?? 0, bytes.byte(at: 13) ?? 0),
            isDeferred: isDeferred)
        if bytes[0] & 0x80 != 0 { information = bytes.bigEndian(at: 3, width: 4) }
        if let sks = bytes.byte(at: 15), sks & 0x80 != 0, let rest = bytes.bigEndian(at: 16, width: 2) {
            specific = SenseKeySpecific(key: key, first: sks, rest: UInt16(rest))
        }
    }

    private init?(descriptors received: UnsafeRawBufferPointer, isDeferred: Bool) {
        guard let keyByte = received.byte(at: 1), let key = SenseKey(rawValue: keyByte & 0x0F) else { return nil }
        self.init(
            key: key, additional: AdditionalSense(received.byte(at: 2) ?? 0, received.byte(at: 3) ?? 0),
            isDeferred: isDeferred)
        let end = min(received.count, received.byte(at: 7).map { Int($0) + 8 } ?? 0)
        var offset = 8
        while offset + 1 < end {
            let next = offset + 2 + Int(received[offset + 1])
            guard next <= end else { return }
            readDescriptor(UnsafeRawBufferPointer(rebasing: received[offset..<next]))
            offset = next
        }
    }

    private mutating func readDescriptor(_ descriptor: UnsafeRawBufferPointer) {
        switch descriptor[0] {
        case 0x00:
            guard let flags = descriptor.byte(at: 2), flags & 0x80 != 0 else { return }
            information = descriptor.bigEndian(at: 4, width: 8) ?? information
        case 0x02:
            guard let first = descriptor.byte(at: 4), first & 0x80 != 0,
                let rest = descriptor.bigEndian(at: 5, width: 2)
            else { return }
            specific = SenseKeySpecific(key: key, first: first, rest: UInt16(rest))
        default: break
        }
    }

    /// The sense data for a CHECK CONDITION: 18 bytes in fixed format, 8 to 28 in descriptor format.
    /// INFORMATION over 32 bits is left out of the fixed format, as SPC-4 clause 4.5.3 asks.
    public func encode(format: SenseFormat = .fixed) -> [UInt8] {
        switch format {
        case .fixed: encodeFixed()
        case .descriptor: encodeDescriptors()
        }
    }

    private func encodeFixed() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 18)
        bytes[0] = isDeferred ? 0x71 : 0x70
        bytes[2] = key.rawValue
        bytes[7] = 10
        bytes[12] = additional.code
        bytes[13] = additional.qualifier
        if let information, let short = UInt32(exactly: information) {
            bytes[0] |= 0x80
            bytes.store(bigEndian: short, at: 3)
        }
        if let specific { bytes.replaceSubrange(15..<18, with: specific.encoded) }
        return bytes
    }

    private func encodeDescriptors() -> [UInt8] {
        var bytes: [UInt8] = [
            isDeferred ? 0x73 : 0x72, key.rawValue, additional.code, additional.qualifier, 0, 0, 0, 0,
        ]
        if let information {
            bytes += [0x00, 0x0A, 0x80, 0x00]
            bytes.append(bigEndian: information)
        }
        if let specific { bytes += [0x02, 0x06, 0x00, 0x00] + specific.encoded + [0x00] }
        bytes[7] = UInt8(bytes.count - 8)
        return bytes
    }
}
