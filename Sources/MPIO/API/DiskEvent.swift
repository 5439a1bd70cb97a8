public import Foundation
public import Multipath

/// Something that happened to a disk or one of its paths, for people and for programs that watch.
public struct DiskEvent: Sendable, CustomStringConvertible {
    /// When it happened, by the system's clock.
    public var at: Date
    /// The disk's name in the policy file.
    public var disk: String
    /// What happened.
    public var event: MultipathEvent
    /// Who made it happen, where somebody did.
    public internal(set) var actor: ChangeActor?
    /// On which lane it happened, from 0, where the disk has several: each has its own view of the paths.
    public internal(set) var lane: Int?
    /// The paths' names, in the order of their indices, as of the event.
    var pathNames: [String]

    /// One line of text, without time and disk.
    public var description: String { event.words { pathNames.indices.contains($0.index) ? pathNames[$0.index] : "?" } }

    /// Which kind it is, as `mpio events --json` has it.
    public var kind: String { event.kind }

    /// The name of the path that the event is about; nil where it is about the disk.
    public var path: String? {
        guard let index = event.path else { return nil }
        return pathNames.indices.contains(index.index) ? pathNames[index.index] : nil
    }
}
