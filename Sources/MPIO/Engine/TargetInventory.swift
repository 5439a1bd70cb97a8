import Multipath
public import SCSI

/// The units that one configured session leads to.
public struct TargetInventory: Sendable {
    public var target: String
    public var portal: String
    /// The units, or why there is no answer.
    public var units: Result<[Unit], PathTroubleError>

    public struct Unit: Sendable {
        public var lun: LogicalUnitNumber
        /// Nil where the unit could not be asked.
        public var device: DeviceDescription?
    }
}

/// A ``PathTrouble`` as an error.
public struct PathTroubleError: Error, Hashable, Sendable, CustomStringConvertible {
    public var trouble: PathTrouble
    public var description: String { trouble.description }
}
