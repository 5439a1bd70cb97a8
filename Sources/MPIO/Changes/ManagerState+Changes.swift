import Foundation
import Multipath

/// A policy file as it was read, to be taken over.
struct LoadedPolicy: Sendable {
    var configuration: Configuration
    var file: String
    var fingerprint: String

    /// Reads a file, on any thread but the reactor's. Throws ``ControlFailure`` with all its mistakes.
    init(contentsOf file: String, shownAs name: String? = nil) throws(ControlFailure) {
        self.file = file
        do {
            let before = try Data(contentsOf: URL(fileURLWithPath: file))
            configuration = try Configuration(contentsOf: file)
            fingerprint = String(StableHash.of(String(decoding: before, as: UTF8.self)), radix: 16)
        } catch let invalid as InvalidConfiguration {
            throw ControlFailure(
                .badPolicyFile, "the policy file \(file) has mistakes; nothing was changed", mistakes: invalid.errors.map(\.description))
        } catch let error as ConfigurationFileError {
            throw ControlFailure(.badPolicyFile, "\(error); nothing was changed")
        } catch {
            throw ControlFailure(.badPolicyFile, "\(file): \(error.localizedDescription); nothing was changed")
        }
    }
}

// The configuration changes while I/O runs. Everything that can be wrong is found before anything is done, and what is
// done is done in one step of the reactor.

extension ManagerState {
    /// What is configured, with the policies that disks were given otherwise.
    private func currentState() -> Configuration {
        var current = configuration
        for disk in disks {
            guard let index = current.luns.firstIndex(where: { $0.name == disk.name }) else { continue }
            current.luns[index].settings = disk.lun.settings
        }
        return current
    }

    func reload(_ policy: LoadedPolicy, expecting: String?, isDryRun: Bool, by actor: ChangeActor?) throws(ControlFailure) -> ChangesReport {
        if let expecting, expecting != policy.fingerprint {
            throw ControlFailure(.invalid, "the policy file \(policy.file) was changed meanwhile; nothing was changed")
        }
        let changes = try change(to: policy.configuration, isDryRun: isDryRun, by: actor)
        return ChangesReport(file: policy.file, fingerprint: policy.fingerprint, isApplied: !isDryRun, changes: changes)
    }

    func edit(_ edit: ConfigurationEdit, by actor: ChangeActor?) throws(ControlFailure) -> ChangesReport {
        guard disks.contains(where: { $0.name == edit.lun }) else {
            throw ControlFailure(.noSuchLUN, "this process does not hold '\(edit.lun)'")
        }
        var wanted = currentState()
        try wanted.apply(edit)
        return ChangesReport(isApplied: true, changes: try change(to: wanted, isDryRun: false, by: actor))
    }

    /// Returns what was, or would be, changed, and what is left.
    private func change(to wanted: Configuration, isDryRun: Bool, by actor: ChangeActor?) throws(ControlFailure) -> [ConfigurationChange] {
        let current = currentState()
        let (new, changes) = possible(wanted, current)
        let count = Set(new.sessionPlaces).count
        guard count <= hasRoomForSessions else {
            throw ControlFailure(
                .invalid, "\(count) sessions are more than the \(hasRoomForSessions) that this process has room for; it takes a restart")
        }
        guard !isDryRun else { return changes }
        host.actor = actor
        defer { host.actor = nil }
        adopt(new)
        for change in changes where change.effect != .left { log(change, actor) }
        for disk in disks {
            guard let lun = new.lun(named: disk.name), let old = current.lun(named: disk.name) else {
                giveUp(disk)
                continue
            }
            disk.update(lun.settings)
            changePaths(of: disk, from: current.effectivePaths(of: old).map { current.place(of: $0.transport) }, to: lun)
            disk.performActions()
        }
        changeSessions(changes)
        host.runDirtyDisks()
        return changes
    }

    /// `wanted` without what can't be done while I/O runs, and what it changes.
    private func possible(_ wanted: Configuration, _ current: Configuration) -> (Configuration, [ConfigurationChange]) {
        var new = wanted
        var changes = current.differences(to: wanted)
        new.initiatorName = current.initiatorName
        for index in changes.indices {
            guard let name = changes[index].lun, let old = current.lun(named: name), disks.contains(where: { $0.name == name })
            else { continue }
            switch changes[index].key {
            case "lun" where changes[index].new == nil && isUsed(name):
                changes[index].effect = .left
                changes[index].note = "this process uses it (\(command))"
                new.keep(old, of: current)
            case "identity":
                changes[index].effect = .left
                changes[index].note = "an open LUN stays what it is"
                if let place = new.luns.firstIndex(where: { $0.name == name }) { new.luns[place].identification = old.identification }
            default: break
            }
        }
        return (new, changes)
    }

    private func changePaths(of disk: DiskEngine, from old: [PathPlace], to lun: LUNConfiguration) {
        let paths = configuration.effectivePaths(of: lun)
        let wanted = Set(paths.map { configuration.place(of: $0.transport) })
        for place in old where !wanted.contains(place) {
            if let index = places[disk.name]?.removeValue(forKey: place) { disk.remove(index, at: place) }
        }
        for path in paths {
            let place = configuration.place(of: path.transport)
            if let kept = disk.keep(place) { places[disk.name, default: [:]][place] = kept }
            if let index = places[disk.name]?[place], disk.isPresent(index) || lun.paths.isEmpty {
                disk.update(index, path.settings)
            } else {
                add(path, to: disk, lun: lun)
            }
        }
    }

    /// Sessions that are used get the timers of the first LUN that uses them, and what else is new.
    private func changeSessions(_ changes: [ConfigurationChange]) {
        var seen: Set<SessionPool.Key> = []
        let changed = Set(changes.compactMap(\.target).map { $0.lowercased() })
        for disk in disks {
            for (place, index) in (places[disk.name] ?? [:]).sorted(by: { $0.value.index < $1.value.index }) {
                guard case .session(let session, _) = place, let key = sessions.key(session), let path = sessions.session(key),
                    seen.insert(key).inserted
                else { continue }
                let old = path.settings.connectionPolicy
                let wanted = sessions.settings(key, disk.lun.settings.timers)
                guard changed.contains(session.target) || wanted.timers != path.settings.timers else { continue }
                path.adopt(wanted)
                if old != path.settings.connectionPolicy, path.group != nil {
                    disk.report(.connectionPolicyChanged(index, from: old, to: path.settings.connectionPolicy))
                }
            }
        }
    }

    /// What no disk tells of by itself.
    private func log(_ change: ConfigurationChange, _ actor: ChangeActor?) {
        let kind: String
        switch (change.key, change.lun) {
        case ("lun", _?): kind = change.new == nil ? "lun-removed" : "lun-added"
        case (_, nil) where change.key == "portal": kind = change.new == nil ? "portal-removed" : "portal-added"
        case (_, nil): kind = "target-changed"
        default: return
        }
        self.log.append(lun: change.lun ?? "", path: change.path, kind: kind, message: change.description, by: actor)
    }
}
