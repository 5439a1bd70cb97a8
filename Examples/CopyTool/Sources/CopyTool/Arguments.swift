/// What the command line says.
struct Arguments {
    static let usage = "usage: CopyTool [--config FILE] [--depth N] [--verify] SOURCE DESTINATION (what holds a slash is a file)"

    var configurationFile = "mpio.yaml"
    /// Requests under way at once.
    var depth = 8
    var verifies = false
    var source: Place
    var destination: Place

    init(_ words: some Sequence<String>) throws(UsageError) {
        var places: [Place] = []
        var rest = words.makeIterator()
        while let word = rest.next() {
            switch word {
            case "--config":
                guard let file = rest.next() else { throw UsageError("--config needs a file") }
                configurationFile = file
            case "--depth":
                guard let depth = rest.next().flatMap({ Int($0) }), 1...256 ~= depth else { throw UsageError("--depth needs a number from 1 to 256") }
                self.depth = depth
            case "--verify": verifies = true
            case let word where word.hasPrefix("-"): throw UsageError("there is no option \(word)")
            default: places.append(Place(word))
            }
        }
        guard places.count == 2 else { throw UsageError("one source and one destination, not \(places.count) names") }
        guard places[0] != places[1] else { throw UsageError("source and destination are the same") }
        (source, destination) = (places[0], places[1])
    }
}

struct UsageError: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}
