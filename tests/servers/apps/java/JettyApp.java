import javax.servlet.http.HttpServlet;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.InetSocketAddress;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.handler.StatisticsHandler;
import org.eclipse.jetty.servlet.ServletContextHandler;
import org.eclipse.jetty.servlet.ServletHolder;

/** Jetty in an app: /hello, and /slow?seconds=N. With a second argument it stops gracefully, within that many seconds. */
public class JettyApp {
    public static void main(String[] args) throws Exception {
        Server server = new Server(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])));
        ServletContextHandler pages = new ServletContextHandler();
        pages.addServlet(new ServletHolder(new Page("hello")), "/hello");
        pages.addServlet(new ServletHolder(new Page("done")), "/slow");
        if (args.length == 1) {
            server.setHandler(pages);
        } else {
            StatisticsHandler counted = new StatisticsHandler();
            counted.setHandler(pages);
            server.setHandler(counted);
            server.setStopTimeout(1000 * Long.parseLong(args[1]));
            server.setStopAtShutdown(true);
        }
        server.start();
        server.join();
    }

    static class Page extends HttpServlet {
        private final String body;

        Page(String body) {
            this.body = body;
        }

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            String seconds = request.getParameter("seconds");
            if (seconds != null) {
                try {
                    Thread.sleep((long) (1000 * Double.parseDouble(seconds)));
                } catch (InterruptedException e) {
                    throw new IOException(e);
                }
            }
            response.setContentLength(body.length());
            response.getWriter().print(body);
        }
    }
}
