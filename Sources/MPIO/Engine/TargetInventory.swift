import Multipath
public import SCSI

/// The units that one configured session leads to.
public struct TargetInventory: Sendable {
    /// The target's name.
    public var target: String
    /// The portal's name.
    public var portal: String
    /// The units, or why there is no answer.
    public var units: Result<[Unit], PathTroubleError>

    /// A unit that the target offers in this session.
    public struct Unit: Sendable {
        /// Its number there.
        public var lun: LogicalUnitNumber
        /// Nil where the unit could not be asked.
        public var device: DeviceDescription?
    }
}

/// A ``PathTrouble`` as an error.
public struct PathTroubleError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Which path, and why.
    public var trouble: PathTrouble
    public var description: String { trouble.description }
}
