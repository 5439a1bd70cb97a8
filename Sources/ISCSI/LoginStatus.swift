/// Status-Class (high byte) and Status-Detail of a Login Response (RFC 7143 section 11.13.5). An open set.
@frozen
public struct LoginStatus: RawRepresentable, Hashable, Sendable, Error {
    public var rawValue: UInt16
    @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Status-Class.
    public enum Category: UInt8, Hashable, Sendable {
        case success = 0
        case redirection = 1
        case initiatorError = 2
        case targetError = 3
    }

    /// nil where the target sent a class that RFC 7143 does not define.
    public var category: Category? { Category(rawValue: UInt8(rawValue >> 8)) }

    @inlinable public static var success: LoginStatus { .init(rawValue: 0x0000) }
    @inlinable public static var targetMovedTemporarily: LoginStatus { .init(rawValue: 0x0101) }
    @inlinable public static var targetMovedPermanently: LoginStatus { .init(rawValue: 0x0102) }
    @inlinable public static var initiatorError: LoginStatus { .init(rawValue: 0x0200) }
    @inlinable public static var authenticationFailure: LoginStatus { .init(rawValue: 0x0201) }
    @inlinable public static var authorizationFailure: LoginStatus { .init(rawValue: 0x0202) }
    @inlinable public static var notFound: LoginStatus { .init(rawValue: 0x0203) }
    @inlinable public static var targetRemoved: LoginStatus { .init(rawValue: 0x0204) }
    @inlinable public static var unsupportedVersion: LoginStatus { .init(rawValue: 0x0205) }
    @inlinable public static var tooManyConnections: LoginStatus { .init(rawValue: 0x0206) }
    @inlinable public static var missingParameter: LoginStatus { .init(rawValue: 0x0207) }
    @inlinable public static var cannotIncludeInSession: LoginStatus { .init(rawValue: 0x0208) }
    @inlinable public static var sessionTypeNotSupported: LoginStatus { .init(rawValue: 0x0209) }
    @inlinable public static var sessionDoesNotExist: LoginStatus { .init(rawValue: 0x020A) }
    @inlinable public static var invalidDuringLogin: LoginStatus { .init(rawValue: 0x020B) }
    @inlinable public static var targetError: LoginStatus { .init(rawValue: 0x0300) }
    @inlinable public static var serviceUnavailable: LoginStatus { .init(rawValue: 0x0301) }
    @inlinable public static var outOfResources: LoginStatus { .init(rawValue: 0x0302) }
}

extension LoginStatus: CustomStringConvertible {
    public var description: String {
        switch self {
        case .success: "success"
        case .targetMovedTemporarily: "target moved temporarily"
        case .targetMovedPermanently: "target moved permanently"
        case .initiatorError: "initiator error"
        case .authenticationFailure: "authentication failure"
        case .authorizationFailure: "initiator not allowed to use the target"
        case .notFound: "target not found"
        case .targetRemoved: "target removed"
        case .unsupportedVersion: "unsupported version"
        case .tooManyConnections: "too many connections"
        case .missingParameter: "missing parameter"
        case .cannotIncludeInSession: "connection can't be included in the session"
        case .sessionTypeNotSupported: "session type not supported"
        case .sessionDoesNotExist: "session does not exist"
        case .invalidDuringLogin: "invalid request during login"
        case .targetError: "target error"
        case .serviceUnavailable: "service unavailable"
        case .outOfResources: "target out of resources"
        default: "login status 0x" + hexadecimal
        }
    }

    private var hexadecimal: String {
        let digits = String(rawValue, radix: 16)
        return String(repeating: "0", count: 4 - digits.count) + digits
    }
}
