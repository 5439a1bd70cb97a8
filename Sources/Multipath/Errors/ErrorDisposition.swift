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
    /// At once.
    case none
    /// `retry-interval` of the LUN.
    case retryInterval
    /// This long the first time, doubled each further time up to a second.
    case backOff(milliseconds: UInt32)
}

/// What else is done.
@frozen
public struct ErrorEffects: OptionSet, Hashable, Sendable {
    /// The effects, one bit each.
    public let rawValue: UInt16
    /// Effects by their bits.
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
    /// It was reset, or has just been switched on; what it kept for this initiator may be gone.
    case reset = "power on or reset"
    /// Its ALUA states are others than they were.
    case accessStateChanged = "ALUA state changed"
    /// It has grown or shrunk.
    case capacityChanged = "capacity changed"
    /// The target has other logical units than it had.
    case inventoryChanged = "LUN inventory changed"
    /// It describes itself in other words.
    case inquiryChanged = "inquiry data changed"
    /// Its identity may have changed: every path is looked at anew.
    case identifierChanged = "device identifier changed"
    /// Its medium may be another one: every path is looked at anew.
    case mediumChanged = "medium may have changed"
    /// It runs other firmware.
    case microcodeChanged = "microcode changed"
    /// Mode or log parameters are others than they were.
    case parametersChanged = "parameters changed"
    /// Reservations or registrations were preempted or released.
    case reservationsChanged = "reservations changed"
    /// Another initiator cleared the task set.
    case commandsCleared = "commands cleared by another initiator"
    /// A thin-provisioned pool is as full as its administrator wished to be told of.
    case thinProvisioningThreshold = "thin provisioning threshold reached"
    /// A thin-provisioned pool is full: writes to new blocks fail.
    case outOfSpace = "no space left in the pool"
    /// It expects to fail (informational exception).
    case failurePredicted = "failure predicted"
    /// A command that had ended well, did not: a write from its cache was lost.
    case deferredError = "an earlier command failed late"

    /// Whether it means that commands were ended, of which nothing else may be heard.
    var endsCommands: Bool { self == .reset || self == .commandsCleared }
}

/// What an error means.
public struct ErrorDisposition: Hashable, Sendable {
    /// What becomes of the request and the path.
    public var action: ErrorAction
    /// Whether a retry counts against `retry-count`. Those that do not are bounded by `command-timeout`,
    /// and by ``PseudoLUN/freeRetryLimit`` so that an array which repeats itself for ever is no busy loop.
    public var usesRetry: Bool
    /// How long the request waits before it goes again.
    public var delay: RetryDelay
    /// What else is done, beside the request.
    public var effects: ErrorEffects
    /// What the device said about itself with it; nil: nothing.
    public var notice: DeviceNotice?
    /// Whether the command may have been executed, at least in part. Then one that must not be repeated
    /// is not retried; its error surfaces.
    public var mayHaveRun: Bool

    /// A meaning. Without further arguments it uses no retry, waits for nothing and has no effects.
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
