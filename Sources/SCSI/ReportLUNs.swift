/// The answer to REPORT LUNS (SPC-4 clause 6.36).
public struct LUNList: Hashable, Sendable {
    /// The units, in the target's order.
    public var luns: [LogicalUnitNumber]
    /// How many bytes the target has, header included; over what was received, the list is cut.
    public var declaredByteCount: Int

    /// A list of these units.
    public init(luns: [LogicalUnitNumber]) {
        self.luns = luns
        declaredByteCount = 8 + 8 * luns.count
    }

    /// Nil below 8 bytes. Of a cut list, the entries that were received whole.
    public init?(parsing bytes: [UInt8]) {
        guard bytes.count >= 8, let count = bytes.uint32(at: 0) else { return nil }
        declaredByteCount = 8 + Int(count)
        luns = stride(from: 8, to: min(bytes.count, declaredByteCount) - 7, by: 8).compactMap {
            bytes.uint64(at: $0).map(LogicalUnitNumber.init(rawValue:))
        }
    }

    /// The header and eight bytes for each unit.
    public func encode() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(8 + 8 * luns.count)
        bytes.append(bigEndian: (8 * luns.count).saturated(to: UInt32.self))
        bytes += [0, 0, 0, 0]
        for lun in luns { bytes.append(bigEndian: lun.rawValue) }
        return bytes
    }
}
