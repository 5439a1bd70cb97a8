/// Which logical unit this is, whatever target or portal leads to it.
///
/// The cases are in the order in which they are preferred. Only what names the *unit* counts: a designator
/// of the port or of the device would make different units look the same, or one unit look like two.
public enum LogicalUnitIdentity: Hashable, Sendable {
    /// NAA 6, IEEE registered extended (SPC-4 clause 7.8.6.6.5).
    case naa6(high: UInt64, low: UInt64)
    /// NAA 5, IEEE registered.
    case naa5(UInt64)
    /// NAA 2, IEEE extended.
    case naa2(UInt64)
    /// EUI-64 based.
    case eui64(EUI64Identifier)
    /// RFC 4122 UUID.
    case uuid(high: UInt64, low: UInt64)
    /// SCSI name string: bytes of UTF-8, without padding.
    case scsiName(String)
    /// T10 vendor identification: eight bytes of vendor, then the vendor's own, without padding.
    case t10([UInt8])
    /// Page 80h's serial number, which is unique only within a vendor's product.
    case serial(vendor: String, product: String, serial: String)
    /// NAA 3, locally assigned: unique only within a target. (Two instances of tgt give the same one to
    /// unrelated units.)
    case local(UInt64, targetName: String)
}

/// An EUI-64 based identifier: 8, 12 or 16 bytes (SPC-4 clause 7.8.6.5).
public struct EUI64Identifier: Hashable, Sendable {
    /// 8, 12 or 16 bytes.
    public let bytes: [UInt8]

    /// Nil for other lengths.
    public init?(bytes: [UInt8]) {
        guard [8, 12, 16].contains(bytes.count) else { return nil }
        self.bytes = bytes
    }
}

extension LogicalUnitIdentity {
    /// The best identity there is; nil where the device gave none that can be trusted to be unique.
    ///
    /// Where a device gives several of the best kind, the smallest is taken, so that the order in which a
    /// port lists them does not matter. Designators that are all zero, or have nothing behind the vendor,
    /// are placeholders and do not count; nor do NAA designators whose IEEE company identifier is 0. (tgt makes
    /// such ones of the hexadecimal digits in any text it was given, alike for most units of most instances.)
    /// `targetName` names the target that was asked, for a locally assigned NAA.
    public static func best(
        designators: [DesignationDescriptor], unitSerial: String?, vendor: String, product: String,
        targetName: String?
    ) -> LogicalUnitIdentity? {
        let own = designators.filter { $0.association == .logicalUnit }
        let candidates = own.compactMap { LogicalUnitIdentity(designator: $0) }.filter { $0.companyIdentifier != 0 }
        if let best = candidates.min(by: { $0.isPreferred(to: $1) }) { return best }
        if let unitSerial, !unitSerial.isEmpty {
            return .serial(vendor: vendor, product: product, serial: unitSerial)
        }
        guard let targetName, !targetName.isEmpty else { return nil }
        let locals = own.compactMap { descriptor -> UInt64? in
            guard descriptor.type == .naa, descriptor.designator.count == 8 else { return nil }
            return descriptor.designator.uint64(at: 0)
        }
        guard let local = locals.filter({ $0 >> 60 == 3 && $0 << 4 != 0 }).min() else { return nil }
        return .local(local, targetName: targetName)
    }

    /// The identity that one designator of a unit is by itself: nil for kinds that are none, wrong lengths
    /// and placeholders.
    public init?(designator descriptor: DesignationDescriptor) {
        let bytes = descriptor.designator
        switch descriptor.type {
        case .naa:
            guard let identity = LogicalUnitIdentity(naa: bytes) else { return nil }
            self = identity
        case .eui64:
            guard let identifier = EUI64Identifier(bytes: bytes), bytes.contains(where: { $0 != 0 }) else {
                return nil
            }
            self = .eui64(identifier)
        case .uuid:
            // The first byte says that an RFC 4122 UUID follows the second (SPC-5 clause 7.7.6.12).
            guard bytes.count == 18, bytes[0] >> 4 == 1, let high = bytes.uint64(at: 2),
                let low = bytes.uint64(at: 10), high | low != 0
            else { return nil }
            self = .uuid(high: high, low: low)
        case .scsiName:
            let text = Self.withoutPadding(bytes, where: { $0 == 0 })
            guard !text.isEmpty else { return nil }
            // Invalid UTF-8 is made into replacement characters, and two such names into one.
            guard let name = String(validating: text, as: UTF8.self) else { return nil }
            self = .scsiName(name)
        case .t10VendorID:
            let text = Self.withoutPadding(bytes, where: { $0 == 0 || $0 == 0x20 })
            guard text.count > 8, text[8...].contains(where: { $0 != 0 && $0 != 0x20 }) else { return nil }
            self = .t10(text)
        default: return nil
        }
    }

    /// NAA 6, 5 and 2; not NAA 3, which alone says nothing.
    private init?(naa bytes: [UInt8]) {
        guard let high = bytes.uint64(at: 0) else { return nil }
        switch (high >> 60, bytes.count) {
        case (6, 16):
            guard let low = bytes.uint64(at: 8), high << 4 != 0 || low != 0 else { return nil }
            self = .naa6(high: high, low: low)
        case (5, 8) where high << 4 != 0: self = .naa5(high)
        case (2, 8) where high << 4 != 0: self = .naa2(high)
        default: return nil
        }
    }

    /// The 24 bits of the company that assigned an NAA designator; nil for other kinds.
    var companyIdentifier: UInt32? {
        switch self {
        case .naa6(let value, _), .naa5(let value): UInt32(value >> 36 & 0xFF_FFFF)
        case .naa2(let value): UInt32(value >> 24 & 0xFF_FFFF)
        default: nil
        }
    }

    private static func withoutPadding(_ bytes: [UInt8], where isPadding: (UInt8) -> Bool) -> [UInt8] {
        var text = bytes
        while let last = text.last, isPadding(last) { text.removeLast() }
        return text
    }

    /// The designator that a target with this identity shows in page 83h; nil for a serial number.
    public var designator: DesignationDescriptor? {
        var bytes: [UInt8] = []
        switch self {
        case .naa6(let high, let low):
            bytes.append(bigEndian: high)
            bytes.append(bigEndian: low)
            return own(.naa, .binary, bytes)
        case .naa5(let value), .naa2(let value), .local(let value, _):
            bytes.append(bigEndian: value)
            return own(.naa, .binary, bytes)
        case .eui64(let identifier): return own(.eui64, .binary, identifier.bytes)
        case .uuid(let high, let low):
            bytes = [0x10, 0]
            bytes.append(bigEndian: high)
            bytes.append(bigEndian: low)
            return own(.uuid, .binary, bytes)
        case .scsiName(let name):
            // Null-terminated, and padded to a multiple of four (SPC-4 clause 7.8.6.11).
            bytes = Array(name.utf8) + [0]
            while !bytes.count.isMultiple(of: 4) { bytes.append(0) }
            return own(.scsiName, .utf8, bytes)
        case .t10(let text): return own(.t10VendorID, .ascii, text)
        case .serial: return nil
        }
    }

    private func own(_ type: DesignatorType, _ codeSet: DesignatorCodeSet, _ bytes: [UInt8]) -> DesignationDescriptor {
        DesignationDescriptor(association: .logicalUnit, type: type, codeSet: codeSet, designator: bytes)
    }

    /// The place in the order of preference, and the bytes by which two of one kind are told apart.
    private var sortKey: (rank: Int, bytes: [UInt8]) {
        let rank =
            switch self {
            case .naa6: 0
            case .naa5: 1
            case .naa2: 2
            case .eui64: 3
            case .uuid: 4
            case .scsiName: 5
            case .t10: 6
            case .serial: 7
            case .local: 8
            }
        return (rank, designator?.designator ?? [])
    }

    private func isPreferred(to other: LogicalUnitIdentity) -> Bool {
        let (own, others) = (sortKey, other.sortKey)
        if own.rank != others.rank { return own.rank < others.rank }
        return own.bytes.lexicographicallyPrecedes(others.bytes)
    }
}
