import java.io.PrintWriter;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Paths;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.ml.recommendation.swing.Swing;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

/**
 * flink-ml's Swing in one process: CLICKS.csv (user,item) T PARALLELISM ROWS.txt.
 *
 * <p>With alpha1 = 0, alpha2 = 1 and beta = 0.5 it computes our formula at alpha = 1, each unordered pair of users
 * counted once. Prints one JSON object; ROWS.txt gets one line "item target,score;target,score;..." per trigger.
 */
public final class SwingRun {
    public static void main(String[] arguments) throws Exception {
        var environment = StreamExecutionEnvironment.getExecutionEnvironment();
        environment.setParallelism(Integer.parseInt(arguments[2]));
        environment.getConfig().enableObjectReuse();
        var tables = StreamTableEnvironment.create(environment);
        var clicks =
                Files.readAllLines(Paths.get(arguments[0])).stream()
                        .map(line -> line.split(","))
                        .map(parts -> Row.of(Long.parseLong(parts[0]), Long.parseLong(parts[1])))
                        .toArray(Row[]::new);
        var stream =
                environment.fromCollection(
                        java.util.Arrays.asList(clicks), Types.ROW_NAMED(new String[] {"user", "item"}, Types.LONG, Types.LONG));
        Table input = tables.fromDataStream(stream);
        var swing =
                new Swing()
                        .setUserCol("user")
                        .setItemCol("item")
                        .setOutputCol("targets")
                        .setK(Integer.parseInt(arguments[1]))
                        .setMaxUserNumPerItem(100_000)
                        .setMinUserBehavior(1)
                        .setMaxUserBehavior(100_000)
                        .setAlpha1(0)
                        .setAlpha2(1)
                        .setBeta(0.5);
        long started = System.nanoTime();
        long cpu = cpuNanos();
        long triggers = 0;
        try (CloseableIterator<Row> rows = swing.transform(input)[0].execute().collect();
                var out = new PrintWriter(arguments[3])) {
            while (rows.hasNext()) {
                Row row = rows.next();
                out.println(row.getField(0) + " " + row.getField(1));
                triggers++;
            }
        }
        System.out.printf(
                java.util.Locale.ROOT,
                "{\"seconds\": %.3f, \"cpu_seconds\": %.3f, \"peak_mib\": %d, \"n_triggers\": %d}%n",
                (System.nanoTime() - started) / 1e9,
                (cpuNanos() - cpu) / 1e9,
                peakMib(),
                triggers);
    }

    /** The process's peak, from the kernel. */
    private static long peakMib() throws Exception {
        return Files.readAllLines(Paths.get("/proc/self/status")).stream()
                        .filter(line -> line.startsWith("VmHWM:"))
                        .mapToLong(line -> Long.parseLong(line.replaceAll("[^0-9]", "")))
                        .findFirst()
                        .orElse(0)
                / 1024;
    }

    private static long cpuNanos() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
                .getProcessCpuTime();
    }
}
