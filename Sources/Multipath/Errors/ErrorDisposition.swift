/// What is done about a command that did not end well.
@frozen
public enum ErrorAction: Hashable, Sendable {
    /// It counts as done.
    case complete
    /// Once more on the same path while that is usable.
    case retrySamePath
    /// Once more, on another path if there is one.
    case retryOtherPath
    /// The path is lost for this LUN; the request and all others on it go elsewhere.
    case failPath(PathFailureReason)
    /// The LUN is lost; every request fails.
    case failLUN
    /// The caller is told.
    case surface
}

/// How long a retry waits.
@frozen
public enum RetryDelay: Hashable, Sendable {
    case none
    /// `retry-interval` of the LUN.
    case retryInterval
    /// This long the first time, doubled each further time up to a second.
    case backOff(milliseconds: UInt32)
}

/// What else is done.
@frozen
public struct ErrorEffects: OptionSet, Hashable, Sendable {
    public let rawValue: UInt16
    @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
    /// REPORT TARGET PORT GROUPS on every path.
    public static let refreshAccessStates = ErrorEffects(rawValue: 1)
    /// The path must show identity, block size and capacity again.
    public static let reprobe = ErrorEffects(rawValue: 2)
    /// Fewer requests at a time on this path from now on.
    public static let shrinkQueue = ErrorEffects(rawValue: 4)
    /// The path is in an ALUA transition: it is waited for.
    public static let transitioning = ErrorEffects(rawValue: 8)
    /// The path is in ALUA standby.
    public static let standby = ErrorEffects(rawValue: 16)
    /// The path is in ALUA unavailable or offline.
    public static let unavailable = ErrorEffects(rawValue: 32)
    /// The path is asked whether it is well.
    public static let verify = ErrorEffects(rawValue: 64)
}

/// What a device said about itself beside failing a command; each becomes an event.
public enum DeviceNotice: String, Hashable, Sendable, CaseIterable {
    case reset = "power on or reset"
    case accessStateChanged = "ALUA state changed"
    case capacityChanged = "capacity changed"
    case inventoryChanged = "LUN inventory changed"
    case inquiryChanged = "inquiry data changed"
    case identifierChanged = "device identifier changed"
    case mediumChanged = "medium may have changed"
    case microcodeChanged = "microcode changed"
    case parametersChanged = "parameters changed"
    case reservationsChanged = "reservations changed"
    case commandsCleared = "commands cleared by another initiator"
    case thinProvisioningThreshold = "thin provisioning threshold reached"
    case outOfSpace = "no space left in the pool"
    case failurePredicted = "failure predicted"
    case deferredError = "an earlier command failed late"
}

/// What an error means.
public struct ErrorDisposition: Hashable, Sendable {
    public var action: ErrorAction
    /// Whether a retry counts against `retry-count`. Those that do not are bounded by `command-timeout`,
    /// and by ``PseudoLUN/freeRetryLimit`` so that an array which repeats itself for ever is no busy loop.
    public var usesRetry: Bool
    public var delay: RetryDelay
    public var effects: ErrorEffects
    public var notice: DeviceNotice?
    /// Whether the command may have been executed, at least in part. Then one that must not be repeated
    /// is not retried; its error surfaces.
    public var mayHaveRun: Bool

    public init(
        _ action: ErrorAction, usesRetry: Bool = false, delay: RetryDelay = .none,
        effects: ErrorEffects = [], notice: DeviceNotice? = nil, mayHaveRun: Bool = false
    ) {
        self.action = action
        self.usesRetry = usesRetry
        self.delay = delay
        self.effects = effects
        self.notice = notice
        self.mayHaveRun = mayHaveRun
    }
}
