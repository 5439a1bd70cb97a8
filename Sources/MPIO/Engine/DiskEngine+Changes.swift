import Multipath
import Timebase

/// A path that takes no new requests and is removed once it carries none.
struct PathDeparture {
    var path: PathIndex
    var place: PathPlace
    /// Then it goes whatever it carries; what is on it is driven elsewhere.
    var deadline: Instant
    var actor: ChangeActor?
}

extension DiskEngine {
    /// How long a path that is removed may finish what it carries.
    static let departureLimit = Duration.seconds(30)

    /// Whether the path was not removed, by whomever.
    func isPresent(_ path: PathIndex) -> Bool { lun.pathState(path) != nil }

    /// Removes a path: no new requests from now on; it goes when the old ones have ended.
    func remove(_ path: PathIndex, at place: PathPlace) {
        guard isPresent(path), !departures.contains(where: { $0.path == path }) else { return }
        departures.append(PathDeparture(path: path, place: place, deadline: now + Self.departureLimit, actor: host.actor))
        lun.takeOut(path, .drain, at: now)
        _ = host.port.setTimer(at: now + Self.departureLimit, handler: self, token: 0)
        touch()
    }

    /// A path that was about to go stays after all; nil where none at this place was.
    func keep(_ place: PathPlace) -> PathIndex? {
        guard let index = departures.firstIndex(where: { $0.place == place }) else { return nil }
        let path = departures.remove(at: index).path
        lun.restore(path, at: now)
        touch()
        return path
    }

    func letPathsGo() {
        let due = departures.filter { departure in
            departure.deadline <= now || (lun.inFlightCount(on: departure.path) ?? 0) == 0
        }
        guard !due.isEmpty else { return }
        departures.removeAll { departure in due.contains { $0.path == departure.path } }
        let actor = host.actor
        for departure in due {
            performActions()
            host.actor = departure.actor
            lun.removePath(departure.path, at: now)
            performActions()
        }
        host.actor = actor
    }

    /// Takes over what is configured of a path that stays.
    func update(_ path: PathIndex, _ settings: PathSettings) {
        lun.setRole(settings.role, of: path, at: now)
        lun.setWeight(settings.weight, of: path, at: now)
        lun.setPlace(settings.order, name: settings.name, of: path, at: now)
        paths[path.index].name = settings.name
        touch()
    }

    func update(_ settings: LUNSettings) {
        lun.update(settings, at: now)
        touch()
    }
}
