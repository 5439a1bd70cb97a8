// REPORT SUPPORTED OPERATION CODES (SPC-4 clause 6.34).

/// What REPORT SUPPORTED OPERATION CODES asks about (REPORTING OPTIONS, SPC-4 table 298).
public enum OperationQuery: Hashable, Sendable {
    /// 0: every command.
    case all
    /// 1: a code without service actions; a code that has them is an error.
    case code(UInt8)
    /// 2: a code with a service action; a code that has none is an error.
    case serviceAction(UInt8, UInt16)
    /// 3: a code and, where the code has service actions, this one; never an error.
    case either(UInt8, UInt16)
}

extension CommandDescriptorBlock {
    /// REPORT SUPPORTED OPERATION CODES; `withTimeouts` (RCTD) asks also how long the commands may take.
    public static func reportSupportedOperationCodes(
        _ query: OperationQuery, withTimeouts: Bool = false, allocationByteCount: UInt32
    ) -> Self {
        var block = Self(operationCode: OperationCode.maintenanceIn)
        block.bytes[1] = ServiceAction.reportSupportedOperationCodes
        var option: UInt8 = 0
        switch query {
        case .all: break
        case .code(let code): (option, block.bytes[3]) = (1, code)
        case .serviceAction(let code, let action):
            (option, block.bytes[3]) = (2, code)
            block.setField(at: 4, width: 2, to: UInt64(action))
        case .either(let code, let action):
            (option, block.bytes[3]) = (3, code)
            block.setField(at: 4, width: 2, to: UInt64(action))
        }
        block.bytes[2] = (withTimeouts ? 0x80 : 0) | option
        block.setField(at: 6, width: 4, to: UInt64(allocationByteCount))
        return block
    }
}

/// A command that a device serves.
public struct SupportedOperation: Hashable, Sendable {
    /// The operation code.
    public var operationCode: UInt8
    /// Nil for codes without service actions.
    public var serviceAction: UInt16?
    /// CDB USAGE DATA: the operation code and service action as they are, and a 1 for every other bit that
    /// the device looks at. Its count is the CDB's length.
    public var usage: [UInt8]

    /// A command with the bits that the device heeds.
    public init(operationCode: UInt8, serviceAction: UInt16? = nil, usage: [UInt8]) {
        self.operationCode = operationCode
        self.serviceAction = serviceAction
        self.usage = usage
    }

    /// The answer to `OperationQuery.all`.
    public static func encode(_ operations: [SupportedOperation], withTimeouts: Bool = false) -> [UInt8] {
        var bytes: [UInt8] = [0, 0, 0, 0]
        for operation in operations {
            bytes += [operation.operationCode, 0]
            bytes.append(bigEndian: operation.serviceAction ?? 0)
            bytes += [0, (withTimeouts ? 2 : 0) | (operation.serviceAction == nil ? 0 : 1)]
            bytes.append(bigEndian: UInt16(operation.usage.count))
            if withTimeouts { bytes += noTimeouts }
        }
        bytes.store(bigEndian: UInt32(bytes.count - 4), at: 0)
        return bytes
    }

    /// The answer about one command, nil where the device does not serve it.
    public static func encodeOne(_ operation: SupportedOperation?, withTimeouts: Bool = false) -> [UInt8] {
        // SUPPORT: 1 not supported, 3 supported as the standard has it.
        guard let operation else { return [0, 1, 0, 0] }
        var bytes: [UInt8] = [0, (withTimeouts ? 0x80 : 0) | 3]
        bytes.append(bigEndian: UInt16(operation.usage.count))
        bytes += operation.usage
        return withTimeouts ? bytes + noTimeouts : bytes
    }

    /// What a device that serves `operations` answers.
    public static func answer(
        _ query: OperationQuery, operations: [SupportedOperation], withTimeouts: Bool = false
    ) throws(IllegalRequest) -> [UInt8] {
        let code: UInt8
        let action: UInt16?
        switch query {
        case .all: return encode(operations, withTimeouts: withTimeouts)
        case .code(let value): (code, action) = (value, nil)
        case .serviceAction(let value, let number): (code, action) = (value, number)
        case .either(let value, let number):
            let hasActions = operations.contains { $0.operationCode == value && $0.serviceAction != nil }
            (code, action) = (value, hasActions ? number : nil)
        }
        let ofCode = operations.filter { $0.operationCode == code }
        // Asking for a code the wrong way round is an error in the REQUESTED field (SPC-4 table 298).
        if let first = ofCode.first, (first.serviceAction == nil) != (action == nil) {
            throw .fieldInCommand(byte: 2, bit: 2)
        }
        return encodeOne(ofCode.first { $0.serviceAction == action }, withTimeouts: withTimeouts)
    }

    /// A command timeouts descriptor that says nothing (SPC-4 table 303).
    private static let noTimeouts: [UInt8] = [0, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// The answer to `OperationQuery.all`, as an initiator reads it: without usage data.
public struct SupportedOperationList: Hashable, Sendable {
    /// A command of the list.
    public struct Entry: Hashable, Sendable {
        /// The operation code.
        public var operationCode: UInt8
        /// Nil for codes without service actions.
        public var serviceAction: UInt16?
        /// CDB LENGTH, in bytes.
        public var commandByteCount: UInt16
    }

    /// The commands, in the device's order.
    public var entries: [Entry]

    /// Nil below 4 bytes; of a cut list, the descriptors that were received whole.
    public init?(parsing received: [UInt8]) {
        guard let count = received.uint32(at: 0) else { return nil }
        let bytes = received.clamped(0..<(4 + Int(count)))
        entries = []
        var offset = 4
        while let length = bytes.uint16(at: offset + 6) {
            let flags = bytes[offset + 5]
            entries.append(
                Entry(
                    operationCode: bytes[offset], serviceAction: flags & 1 == 1 ? bytes.uint16(at: offset + 2) : nil,
                    commandByteCount: length))
            offset += 8
            guard flags & 2 != 0 else { continue }
            guard let timeouts = bytes.uint16(at: offset) else { return }
            offset += 2 + Int(timeouts)
        }
    }
}

/// The answer about one command, as an initiator reads it.
public enum OperationSupport: Hashable, Sendable {
    /// The device can't tell now.
    case unknown
    /// Not served.
    case notSupported
    /// Served as the standard has it, with these bits heeded.
    case supported(usage: [UInt8])
    /// Served, but not as the standard has it.
    case vendorSpecific(usage: [UInt8])

    /// Nil below 4 bytes, or where the usage data is cut.
    public init?(parsing bytes: [UInt8]) {
        guard let count = bytes.uint16(at: 2) else { return nil }
        let usage = bytes.clamped(4..<(4 + Int(count)))
        switch bytes[1] & 0x07 {
        case 1: self = .notSupported
        case 3 where usage.count == Int(count): self = .supported(usage: usage)
        case 5 where usage.count == Int(count): self = .vendorSpecific(usage: usage)
        case 3, 5: return nil
        default: self = .unknown
        }
    }
}
