/// Why a device server refuses a command before it does anything.
public enum IllegalRequest: Error, Hashable, Sendable {
    /// The operation code is not served.
    case operationCode(UInt8)
    /// A field of the CDB is wrong; the bit is the field's highest, where it is no whole byte.
    case fieldInCommand(byte: UInt16, bit: UInt8? = nil)
    /// A field of the parameter list is wrong; the bit as with ``fieldInCommand(byte:bit:)``.
    case fieldInParameterList(byte: UInt16, bit: UInt8? = nil)
    /// The parameter list ends within a field that the CDB's PARAMETER LIST LENGTH should have covered.
    case parameterListLength
    /// The first block asked for that is not there.
    case lbaOutOfRange(UInt64)

    /// The sense data to answer with, by CHECK CONDITION.
    public var sense: SenseData {
        switch self {
        case .operationCode:
            SenseData(
                key: .illegalRequest, additional: .invalidOperationCode,
                specific: .fieldPointer(FieldPointer(isInCommand: true, byte: 0, bit: nil)))
        case .fieldInCommand(let byte, let bit):
            SenseData(
                key: .illegalRequest, additional: .invalidFieldInCommand,
                specific: .fieldPointer(FieldPointer(isInCommand: true, byte: byte, bit: bit)))
        case .fieldInParameterList(let byte, let bit):
            SenseData(
                key: .illegalRequest, additional: .invalidFieldInParameterList,
                specific: .fieldPointer(FieldPointer(isInCommand: false, byte: byte, bit: bit)))
        case .parameterListLength:
            SenseData(key: .illegalRequest, additional: .parameterListLengthError)
        case .lbaOutOfRange(let lba):
            SenseData(key: .illegalRequest, additional: .lbaOutOfRange, information: lba)
        }
    }
}
